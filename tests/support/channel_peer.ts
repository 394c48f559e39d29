/**
 * A process that listens for peers and sends back what it receives; prints its port. For tests that kill it or
 * that try to crash it.
 */
import { listenForPeers } from "../../src/http/peer_server.ts";
import type { Channel } from "../../src/wire/channel.ts";

async function echo(channel: Channel): Promise<void> {
  for await (const chunk of channel.incoming) await channel.write(chunk);
}

const server = await listenForPeers({
  address: { host: "127.0.0.1", port: 0 },
  tls: null,
  signal: new AbortController().signal,
  accept: echo,
  acceptReturn: echo,
  join: null,
});
console.log(server.address.port);
