/**
 * Who may use the control API over TCP: the right Host and Origin (against DNS rebinding and foreign web pages),
 * then the bearer token if there is one. The unix socket is guarded by its file mode instead.
 */
import { Buffer } from "node:buffer";
import { createHash, timingSafeEqual } from "node:crypto";
import { isIP } from "node:net";
import type { MiddlewareHandler } from "hono";
import { type Address, formatAddress, isLoopbackHost } from "../config/address.ts";
import { MmliteError } from "../errors.ts";
import { refuse, requestLine } from "./problem.ts";

/** How a request reached the API. */
export type Transport = "tcp" | "unix";

/** What Hono's handlers of the API are given. */
export interface ApiEnv {
  Bindings: { readonly transport: Transport };
}

/** Where the API listens on TCP, and who may use it there. */
export interface AccessRules {
  /** Absent if the API is on a unix socket alone. */
  readonly address?: Address;
  /** Other host names that clients may call this API by, without port. */
  readonly advertisedHosts?: readonly string[];
  readonly token?: string;
}

/** Throws `config` for an address that other machines reach without a token. */
export function checkExposure({ address, token }: AccessRules): void {
  if (address === undefined || token !== undefined || isLoopbackHost(address.host)) return;
  throw new MmliteError(
    "config",
    `Cannot serve the control API on "${
      formatAddress(address)
    }": other machines reach it and there is no token`,
    { hint: "Set listen.api.token_file (--token-file), or listen on 127.0.0.1" },
  );
}

/** Refuses requests that name another host, or that a page of another origin sent: 403. */
export function checkHost(rules: AccessRules): MiddlewareHandler<ApiEnv> {
  return async (c, next) => {
    if (c.env.transport === "unix") return await next();
    const host = c.req.header("host") ?? "";
    const name = hostName(host);
    if (name === null || !isOurName(name, rules)) {
      return refuse(c, {
        kind: "forbidden",
        detail: `Cannot answer ${requestLine(c)}: host ${JSON.stringify(host)} is not a name of this node`,
        hint: "Use localhost, the address the control API listens on, or one of its advertised hosts",
      });
    }
    const origin = c.req.header("origin");
    if (origin !== undefined && !isSameOrigin(origin, host)) {
      return refuse(c, {
        kind: "forbidden",
        detail: `Cannot answer ${requestLine(c)}: a page of origin ${JSON.stringify(origin)} asks`,
        hint: "Use the control API from its own pages, or from outside a browser",
      });
    }
    await next();
  };
}

/**
 * Refuses TCP requests without the token: 401. Liveness and readiness stay open to probes, without details, and so
 * does the dashboard's page, which holds none.
 */
export function checkToken({ token }: AccessRules): MiddlewareHandler<ApiEnv> {
  return async (c, next) => {
    if (token === undefined || c.env.transport === "unix" || isOpen(c.req.path, c.req.query())) {
      return await next();
    }
    const given = /^bearer +(.+)$/i.exec(c.req.header("authorization") ?? "")?.[1];
    if (given !== undefined && isSameSecret(given, token)) return await next();
    c.header(
      "www-authenticate",
      `Bearer realm="mmlite"${given === undefined ? "" : ', error="invalid_token"'}`,
    );
    const why = given === undefined ? "no token was sent" : "the token is wrong";
    return refuse(c, { kind: "unauthenticated", detail: `Cannot answer ${requestLine(c)}: ${why}` });
  };
}

function isOpen(path: string, query: Record<string, string>): boolean {
  return path === "/" || path === "/livez" || (path === "/readyz" && query.verbose === undefined);
}

/** The name in a Host header, lower case, without port, brackets and trailing dot; null if it is none. */
function hostName(host: string): string | null {
  if (!/^[\w.:[\]-]+$/.test(host)) return null;
  const url = URL.parse(`http://${host}`);
  if (url === null || url.hostname === "") return null;
  return url.hostname.replace(/^\[|\]$/g, "").replace(/\.$/, "");
}

function isOurName(name: string, { address, advertisedHosts = [] }: AccessRules): boolean {
  if (isLoopbackHost(name)) return true;
  if (advertisedHosts.some((host) => host.toLowerCase() === name)) return true;
  if (address === undefined) return false;
  if (address.host === "0.0.0.0" || address.host === "::") {
    // Listening on every address: any of them is ours, and rebinding needs a name, not an address.
    return isIP(name) !== 0;
  }
  return address.host.toLowerCase() === name;
}

function isSameOrigin(origin: string, host: string): boolean {
  const url = URL.parse(origin);
  return url !== null && url.host === URL.parse(`${url.protocol}//${host}`)?.host;
}

/** Compares digests, so that the time taken tells nothing about the token. */
function isSameSecret(a: string, b: string): boolean {
  const digest = (text: string) => createHash("sha256").update(Buffer.from(text)).digest();
  return timingSafeEqual(digest(a), digest(b));
}
