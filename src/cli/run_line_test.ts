import assert from "node:assert/strict";
import { formatRunLine } from "./run_line.ts";

Deno.test("the line has what was given and what the join decided, ready for a shell", () => {
  const flags = {
    name: "fra",
    postgres: "postgres://app:s3cret@db/shop",
    tables: undefined,
    exclude: ["public.it's"],
    "log-level": undefined,
    insecure: false,
  };
  assert.equal(
    formatRunLine({ flags, file: "/etc/my mmlite.yaml" }, {
      cluster: "shop",
      tables: { include: ["public.*", "app.a"], exclude: ["public.it's", "public.b"] },
    }),
    "mmlite run -c '/etc/my mmlite.yaml' --name fra --postgres 'postgres://app:***@db/shop' " +
      "--tables 'public.*' --tables app.a --exclude 'public.it'\\''s' --exclude public.b --cluster shop",
  );
  assert.equal(
    formatRunLine({ flags: { name: "fra", tables: ["public.t"] }, file: undefined }, {
      cluster: null,
      tables: null,
    }),
    "mmlite run --name fra --tables public.t",
  );
});
