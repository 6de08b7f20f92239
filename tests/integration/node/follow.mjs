// Follows a tenant's feed with the real socket.io-client, over every restart of the gateway, and prints each event's offset as it comes.
// Usage: node follow.mjs URL KEY TRANSPORTS
import { io } from "socket.io-client";

const [url, token, transports] = process.argv.slice(2);
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const socket = io(url, {
  auth: { token }, transports: transports.split(","), reconnectionDelay: 50, reconnectionDelayMax: 200, timeout: 5000,
});
const position = {};

socket.on("connect", async () => {
  try {
    const answer = await socket.timeout(5000).emitWithAck("subscribe", { topics: ["tenant"], ...position });
    say({ subscribed: answer });
    if (answer.type === "subscribed") Object.assign(position, { epoch: answer.epoch, offset: answer.offset });
  } catch {
    say({ unanswered: true }); // the gateway went away in between: the client connects again
  }
});
socket.on("event", (event) => {
  say({ offset: event.offset, kind: event.event.type });
  position.offset = event.offset;
});
socket.on("disconnect", (reason) => say({ disconnected: reason }));
