/**
 * A process that listens for peers and sends back what it receives; prints its port. For tests that kill it or
 * that try to crash it.
 */
import { listenForPeers } from "../../src/http/peer_server.ts";

const server = await listenForPeers({
  address: { host: "127.0.0.1", port: 0 },
  signal: new AbortController().signal,
  accept: async (channel) => {
    for await (const chunk of channel.incoming) await channel.write(chunk);
  },
});
console.log(server.address.port);
