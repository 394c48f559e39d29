/**
 * The dashboard at `/`: one page that asks `/v1/status` every two seconds.
 *
 * The page itself holds nothing of the node and is open; what it asks for wants the token. It may run its own
 * script and nothing else (Content-Security-Policy with their digests), and no other page may frame it.
 */
import { createHash } from "node:crypto";
import type { OpenAPIHono } from "@hono/zod-openapi";
import PAGE from "../ui/dashboard.html" with { type: "text" };
import type { ApiEnv } from "./access.ts";

const POLICY = [
  "default-src 'none'",
  `script-src ${digestOf("script")}`,
  `style-src ${digestOf("style")}`,
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join("; ");

/** The text of the page's one `<script>` or `<style>`, as a source of Content-Security-Policy level 2. */
function digestOf(tag: "script" | "style"): string {
  const text = PAGE.slice(PAGE.indexOf(`<${tag}>`) + tag.length + 2, PAGE.indexOf(`</${tag}>`));
  return `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
}

/** Adds the page to the app. */
export function addDashboard(app: OpenAPIHono<ApiEnv>): void {
  app.get(
    "/",
    (c) => c.html(PAGE, 200, { "content-security-policy": POLICY, "referrer-policy": "no-referrer" }),
  );
}
