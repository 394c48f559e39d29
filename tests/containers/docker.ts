/**
 * What testcontainers does not offer of Docker: networks and volumes with a label of this run, containers on several
 * networks from their start, a read-only root, SIGKILL.
 */
import type { Readable } from "node:stream";
// @ts-types="@types/dockerode"
import type Dockerode from "dockerode";
import { GenericContainer, getContainerRuntimeClient, type StartedTestContainer } from "testcontainers";
import { RUN_ID } from "./images.ts";

/** On everything that a run makes, so that whoever started it can remove what is left. */
export const RUN_LABELS = { "mmlite.test": RUN_ID };

/** A network, and the name that a container has on it. */
export interface Attachment {
  readonly network: Dockerode.Network;
  readonly alias: string;
}

/** Creates a network that containers of no other network can reach. */
export async function createNetwork(name: string): Promise<Dockerode.Network> {
  const { network } = await getContainerRuntimeClient();
  return await network.create({
    Name: `${RUN_ID}-${name}`,
    CheckDuplicate: true,
    Labels: RUN_LABELS,
  });
}

/** Creates a volume; its name. */
export async function createVolume(name: string): Promise<string> {
  const { container } = await getContainerRuntimeClient();
  const volume = `${RUN_ID}-${name}`;
  await container.dockerode.createVolume({ Name: volume, Labels: RUN_LABELS });
  return volume;
}

/** Removes a volume that no container uses any more. */
export async function removeVolume(name: string): Promise<void> {
  const { container } = await getContainerRuntimeClient();
  await container.dockerode.getVolume(name).remove();
}

/** A container as Docker's own API has it. */
export async function containerById(id: string): Promise<Dockerode.Container> {
  return (await getContainerRuntimeClient()).container.getById(id);
}

/** Ends a container with SIGKILL and waits until it is gone. */
export async function killContainer(
  container: Dockerode.Container,
): Promise<void> {
  await container.kill({ signal: "SIGKILL" });
  await container.wait();
}

/** Everything that a container has printed. */
export async function logOf(container: Dockerode.Container): Promise<string> {
  const frames = await container.logs({ stdout: true, stderr: true });
  let text = "";
  // Each frame begins with its stream, three zeros and its length (attach in Docker's API).
  for (let at = 0; at + 8 <= frames.length;) {
    const end = at + 8 + frames.readUInt32BE(at + 4);
    text += frames.toString("utf8", at + 8, end);
    at = end;
  }
  return text;
}

/** A container of this run. */
export class LabelledContainer extends GenericContainer {
  readonly #later: Attachment[] = [];

  constructor(image: string) {
    super(image);
    this.withLabels(RUN_LABELS);
  }

  /** Attaches it, before it starts, to these networks and to no other. */
  withAttachments(first: Attachment, ...others: readonly Attachment[]): this {
    this.withNetworkMode(first.network.id);
    this.createOpts.NetworkingConfig = {
      EndpointsConfig: { [first.network.id]: { Aliases: [first.alias] } },
    };
    this.#later.push(...others);
    return this;
  }

  /** Lets it write to its volumes alone, with no rights beyond those of its account. */
  withLeastRights(): this {
    this.hostConfig.ReadonlyRootfs = true;
    return this.withDroppedCapabilities("ALL").withSecurityOpt(
      "no-new-privileges",
    );
  }

  /** Lets Docker start it again when it fails by itself, though not when it is killed. */
  withRestarts(): this {
    this.hostConfig.RestartPolicy = { Name: "on-failure" };
    return this;
  }

  /** As testcontainers starts it; if it does not start, what it has printed is in the error. */
  override async start(): Promise<StartedTestContainer> {
    let printed = "";
    let log: Readable | undefined;
    this.withLogConsumer((stream) => {
      log = stream.on("data", (text) => printed += text);
    });
    try {
      return await super.start();
    } catch (thrown) {
      throw new Error(`${(thrown as Error).message}; it printed:\n${printed}`, { cause: thrown });
    } finally {
      log?.destroy();
    }
  }

  protected override async containerCreated(id: string): Promise<void> {
    for (const { network, alias } of this.#later) {
      await network.connect({
        Container: id,
        EndpointConfig: { Aliases: [alias] },
      });
    }
  }
}
