// Drives the real socket.io-client against the echo application and prints what it saw, one JSON object per line.
// Usage: node client.mjs URL SCENARIO TRANSPORTS   (TRANSPORTS: comma-separated, in the order the client tries them)
import { io } from "socket.io-client";

const [url, scenario, transports] = process.argv.slice(2);
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const options = { transports: transports.split(","), reconnectionDelay: 50, reconnectionDelayMax: 100, timeout: 5000 };
const once = (emitter, event) => new Promise((resolve) => emitter.once(event, (...args) => resolve(args)));
const text = (buffer) => Buffer.from(buffer).toString("latin1");

const scenarios = {
  // Events, acks in both directions and binary, before and (where the client upgrades) after the upgrade.
  async talk() {
    const socket = io(url, { ...options, auth: { token: "T" } });
    const greeted = once(socket, "auth");
    await once(socket, "connect");
    say({ auth: (await greeted)[0] });
    const round = async () => {
      const back = once(socket, "message-back");
      socket.emit("message", 1, "zwei €", { 3: [true, null] });
      say({ back: await back });
      const binary = once(socket, "message-back");
      socket.emit("message", { file: Buffer.from("\x00\x01\xff", "latin1") }, Buffer.alloc(0));
      const [{ file }, empty] = await binary;
      say({ binary: [text(file), text(empty)] });
      say({ ack: await socket.timeout(5000).emitWithAck("message-with-ack", "x") });
      say({ ackBinary: text(await socket.timeout(5000).emitWithAck("message-with-ack", Buffer.from("b"))) });
      const asked = once(socket, "asked");
      socket.once("question", (what, answer) => answer("yes", what));
      socket.emit("ask-me", "really?");
      say({ asked: (await asked)[0] });
    };
    await round();
    const engine = socket.io.engine;
    if (options.transports.length > 1 && engine.transport.name === "polling") await once(engine, "upgrade");
    say({ transport: engine.transport.name });
    await round();
    socket.disconnect();
  },

  // Many events while the transport changes under them: none lost, none twice, in order.
  async burst() {
    const socket = io(url, options);
    const count = 500;
    const got = [];
    const all = new Promise((resolve) => {
      socket.on("message-back", (n) => {
        got.push(n);
        if (got.length === count) resolve();
      });
    });
    await once(socket, "connect");
    for (let n = 0; n < count; n++) {
      socket.emit("message", n);
      if (n % 25 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    await all;
    say({ inOrder: got.every((n, at) => n === at), transport: socket.io.engine.transport.name });
    socket.disconnect();
  },

  async refused() {
    const socket = io(url, { ...options, auth: { token: "wrong" } });
    const [error] = await once(socket, "connect_error");
    say({ refused: error.message, data: error.data });
    const nowhere = io(url + "/nowhere", options);
    say({ nowhere: (await once(nowhere, "connect_error"))[0].message });
    const custom = io(url + "/custom", { ...options, auth: { a: 1 } });
    say({ custom: (await once(custom, "auth"))[0] });
    socket.disconnect();
    nowhere.disconnect();
    custom.disconnect();
  },

  // The server puts the client out: it is told so and stays away.
  async putOut() {
    const socket = io(url, options);
    await once(socket, "connect");
    socket.emit("leave");
    say({ reason: (await once(socket, "disconnect"))[0], active: socket.active });
    socket.disconnect();
  },

  // The test restarts the server once it has read "connected"; the client comes back by itself.
  async restart() {
    const socket = io(url, options);
    await once(socket, "connect");
    const gone = once(socket, "disconnect");
    say({ connected: true });
    say({ reason: (await gone)[0] });
    await once(socket, "connect");
    const back = once(socket, "message-back");
    socket.emit("message", "again");
    say({ back: await back });
    socket.disconnect();
  },
};

await scenarios[scenario]();
