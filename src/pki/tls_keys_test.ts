import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { join } from "node:path";
import {
  type Claims,
  selfSigned,
  TestAuthority,
  type TestCertificate,
} from "../../tests/support/certificates.ts";
import { eventually } from "../../tests/support/poll.ts";
import { createAuthority, renewCertificate } from "./authority.ts";
import { TlsKeys, type TlsMaterial } from "./tls_keys.ts";

const NAME = { cluster: "mmlite", node: "ams" };
/** How often the tests look at files, milliseconds. */
const INTERVAL_MS = 20;

/** A directory with the files of a node; changes are as operators make them. */
class Place implements AsyncDisposable {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async create(authority: TestAuthority, node: TestCertificate): Promise<Place> {
    const place = new Place(await Deno.makeTempDir());
    await place.write("ca.pem", authority.certificate);
    await place.put(node);
    return place;
  }

  get files() {
    return {
      cert: join(this.directory, "node.pem"),
      key: join(this.directory, "key.pem"),
      ca: join(this.directory, "ca.pem"),
    };
  }

  load(): Promise<TlsKeys> {
    return TlsKeys.load(this.files, NAME);
  }

  async put({ certificate, key }: TestCertificate): Promise<void> {
    await this.write("key.pem", key);
    await this.write("node.pem", certificate);
  }

  async write(name: string, text: string): Promise<void> {
    await Deno.writeTextFile(join(this.directory, name), text, { mode: 0o600 });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.directory, { recursive: true });
  }
}

Deno.test("files that fit are what is shown and trusted", async () => {
  const authority = await TestAuthority.create();
  const node = await authority.issueNode("ams");
  await using place = await Place.create(authority, node);
  const { current, problem } = await place.load();
  assert.equal(problem, null);
  assert.deepEqual([current.certificate, current.key], [node.certificate, node.key]);
  assert.deepEqual(current.name, NAME);
  assert.equal(current.authorities.length, 1);
  assert(current.expiresAt < current.authorityExpiresAt);
});

Deno.test("a certificate may come with those between it and the authority, and with text around it", async () => {
  const authority = await TestAuthority.create();
  const between = await authority.createIntermediate();
  const node = await between.issueNode("ams");
  const certificate = `# the node\n${node.certificate}\n# the CA between\n${between.certificate}\n`;
  await using place = await Place.create(authority, { ...node, certificate });
  assert.equal((await place.load()).current.certificate, certificate);
});

Deno.test("what does not fit is refused, with the file and the reason", async (t) => {
  const authority = await TestAuthority.create();
  const good = await authority.issueNode("ams");
  const issue = (claims: Claims & { cluster?: string }, node = "ams") => authority.issueNode(node, claims);
  const weak = generateKeyPairSync("rsa", { modulusLength: 1024 }).privateKey;
  const encrypted = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({
    type: "pkcs8",
    format: "pem",
    cipher: "aes-256-cbc",
    passphrase: "hush",
  }) as string;
  const cases: [string, Partial<TestCertificate & { ca: string }>, RegExp][] = [
    ["another key", { key: (await issue({})).key }, /key\.pem": it is not the key of ".*node\.pem"$/],
    [
      "a key with a password",
      { key: encrypted },
      /key\.pem": it holds no private key in PEM form without a password$/,
    ],
    ["no key", { key: "" }, /key\.pem": it holds no private key/],
    [
      "a key of another kind",
      { key: weak.export({ type: "pkcs1", format: "pem" }) as string },
      /is not the key/,
    ],
    ["no certificate", { certificate: "" }, /node\.pem": it holds no certificate in PEM form$/],
    [
      "half a certificate",
      { certificate: good.certificate.slice(0, 200) },
      /node\.pem": it holds no certificate/,
    ],
    [
      "odd bytes",
      { certificate: good.certificate.replace("MII", "AAA") },
      /a certificate in it cannot be read: /,
    ],
    ["an expired one", await issue({ days: [-9, -1] }), /node\.pem": it expired at 20\d\d-.*Z$/],
    ["one of the future", await issue({ days: [1, 9] }), /node\.pem": it is not valid before 20\d\d-.*Z$/],
    [
      "another node's",
      await issue({}, "fra"),
      /node\.pem": it names mmlite:\/\/mmlite\/fra, and this node is mmlite:\/\/mmlite\/ams$/,
    ],
    [
      "another cluster's",
      await issue({ cluster: "bank" }),
      /it names mmlite:\/\/bank\/ams, and this node is/,
    ],
    ["one without a name", await authority.issue({ commonName: "ams" }), /it names no node of mmlite, and/],
    [
      "one for servers only",
      await issue({ usages: ["1.3.6.1.5.5.7.3.1" as never] }),
      /for both serverAuth and/,
    ],
    [
      "another CA's",
      await (await TestAuthority.create()).issueNode("ams"),
      /no authority in ".*ca\.pem" has issued it$/,
    ],
    [
      "nobody's",
      await selfSigned({ uris: ["mmlite://mmlite/ams"] }),
      /no authority in ".*ca\.pem" has issued it$/,
    ],
    ["no CA", { ca: "" }, /ca\.pem": it holds no certificate in PEM form$/],
    ["itself for its CA", { ca: good.certificate }, /no authority in ".*ca\.pem" has issued it$/],
  ];
  for (const [what, { ca = authority.certificate, ...node }, message] of cases) {
    await t.step(what, async () => {
      await using place = await Place.create(authority, { ...good, ...node });
      await place.write("ca.pem", ca);
      const error = await place.load().then(() => assert.fail("it was taken"), (error) => error);
      assert.equal(error.kind, "config");
      assert.match(error.message, message);
      assert.doesNotMatch(`${error.message} ${error.hint}`, /hush|PRIVATE/);
    });
  }
  await t.step("a key that is too short", async () => {
    const own = await createAuthority({ cluster: "mmlite", days: 9 });
    const key = weak.export({ type: "pkcs8", format: "pem" }) as string;
    const certificate = await renewCertificate(own, { key, subject: { name: NAME, hosts: [], days: 9 } });
    await using place = await Place.create(authority, { certificate, key });
    await place.write("ca.pem", own.certificate.toString());
    await assert.rejects(place.load(), { kind: "config", message: /node\.pem": (ee )?key too small$/ });
  });
  await t.step("files that are not there", async () => {
    for (const name of ["cert", "key", "ca"] as const) {
      await using place = await Place.create(authority, good);
      await Deno.remove(place.files[name]);
      await assert.rejects(place.load(), { kind: "config", message: /^Cannot read .*: ENOENT/ });
    }
  });
  await t.step("a key that everybody may read", async () => {
    await using place = await Place.create(authority, good);
    await Deno.chmod(place.files.key, 0o644);
    await assert.rejects(place.load(), {
      message: /every user may read or write it$/,
      hint: /^Run: chmod o-rwx '/,
    });
  });
});

Deno.test("a reload takes what fits, and keeps what it has where nothing does", async () => {
  const authority = await TestAuthority.create();
  const [first, second] = [await authority.issueNode("ams"), await authority.issueNode("ams")];
  await using place = await Place.create(authority, first);
  const keys = await place.load();
  const heard: TlsMaterial[] = [];
  const forget = keys.onChange((material) => heard.push(material));

  assert.equal(await keys.reload(), false, "nothing is new");
  await place.write("node.pem", second.certificate);
  assert.equal(await keys.reload(), false);
  assert.match(keys.problem!.message, /it is not the key of/);
  assert.equal(keys.current.certificate, first.certificate);

  await place.put(second);
  assert.equal(await keys.reload(), true);
  assert.equal(keys.problem, null);
  assert.deepEqual(heard, [keys.current]);
  assert.equal(keys.current.certificate, second.certificate);

  await Deno.remove(place.files.ca);
  assert.equal(await keys.reload(), false);
  assert.match(keys.problem!.message, /^Cannot read certificate file ".*ca\.pem": ENOENT/);
  forget();
  await place.write("ca.pem", authority.certificate);
  await place.put(first);
  assert.deepEqual(await Promise.all([keys.reload(), keys.reload()]), [true, false]);
  assert.equal(heard.length, 1);
});

Deno.test("one authority gives way to another by way of both", async () => {
  const [old, next] = [await TestAuthority.create(), await TestAuthority.create()];
  await using place = await Place.create(old, await old.issueNode("ams"));
  const keys = await place.load();
  await place.put(await next.issueNode("ams"));
  assert.equal(await keys.reload(), false, "nobody trusts the new one yet");
  await place.write("ca.pem", `${old.certificate}\n${next.certificate}\n`);
  assert.equal(await keys.reload(), true);
  assert.equal(keys.current.authorities.length, 2);
  await place.write("ca.pem", next.certificate);
  assert.equal(await keys.reload(), true);
  assert.equal(keys.current.authorities.length, 1);
});

Deno.test("a watch takes new files, however they are put there", async (t) => {
  const authority = await TestAuthority.create();
  await using place = await Place.create(authority, await authority.issueNode("ams"));
  const keys = await place.load();
  const stop = new AbortController();
  const watching = keys.watch(stop.signal, INTERVAL_MS);
  const taken = (certificate: string) =>
    eventually("the new certificate to be used", () => keys.current.certificate === certificate);

  await t.step("written over", async () => {
    const next = await authority.issueNode("ams");
    await place.put(next);
    await taken(next.certificate);
  });
  await t.step("moved over", async () => {
    const next = await authority.issueNode("ams");
    for (const [path, text] of [[place.files.key, next.key], [place.files.cert, next.certificate]]) {
      await Deno.writeTextFile(`${path}.new`, text, { mode: 0o600 });
      await Deno.rename(`${path}.new`, path);
    }
    await taken(next.certificate);
  });
  await t.step("behind a symbolic link that is swapped, as Kubernetes does", async () => {
    const next = await authority.issueNode("ams");
    await using other = await Place.create(authority, next);
    for (const name of ["cert", "key"] as const) {
      await Deno.symlink(other.files[name], `${place.files[name]}.link`);
      await Deno.rename(`${place.files[name]}.link`, place.files[name]);
    }
    await taken(next.certificate);
    await place.put(next);
  });
  assert.equal(keys.problem, null);
  stop.abort();
  await watching;
});

Deno.test("a watch waits out a change that is half done, and complains of one that stays so", async () => {
  const authority = await TestAuthority.create();
  const [first, second] = [await authority.issueNode("ams"), await authority.issueNode("ams")];
  await using place = await Place.create(authority, first);
  const keys = await place.load();
  const stop = new AbortController();
  const watching = keys.watch(stop.signal, 20 * INTERVAL_MS);
  // Each write comes before the watch has seen the files twice as they are.
  let problems = 0;
  for (let length = 0; length < second.certificate.length; length += 60) {
    await place.write("node.pem", second.certificate.slice(0, length));
    if (keys.problem !== null) problems++;
  }
  assert.equal(problems, 0);
  await eventually("the half to be complained of", () => keys.problem);
  assert.equal(keys.current.certificate, first.certificate);
  await place.put(second);
  await eventually("the whole to be used", () => keys.current.certificate === second.certificate);
  assert.equal(keys.problem, null);
  stop.abort();
  await watching;
});
