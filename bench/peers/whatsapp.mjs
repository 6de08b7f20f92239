// What both Node peers share: the webhook's route, its signature, its items, the table, and Socket.IO.
//
// Settings (environment): PORT, APP_SECRET, DATABASE_URL, WORKERS (processes; 1 if not set), POOL (connections a process; 10, as pg's own default).
// On two cores it is not plain that a second process helps, for the load and PostgreSQL want a core as well: the scenario tries both.
// The realtime side speaks just enough of docs/realtime.md for the same dashboard to follow every peer.

import cluster from "node:cluster";
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { createAdapter, setupPrimary } from "@socket.io/cluster-adapter";
import express from "express";
import pg from "pg";
import { Server } from "socket.io";

const { PORT, APP_SECRET, DATABASE_URL } = process.env;
const WORKERS = Number(process.env.WORKERS ?? 1);

// The key is the dedupe: a message's id, or a receipt's message and status.
const TABLE = `
  CREATE TABLE IF NOT EXISTS events (
    id text PRIMARY KEY,
    endpoint text NOT NULL,
    contact text NOT NULL,
    kind text NOT NULL,
    body jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
  )`;

// Named, so that each connection parses and plans it once. One statement commits by itself: event and dedupe together.
const INSERT = {
  name: "insert",
  text: `
    INSERT INTO events (id, endpoint, contact, kind, body)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::jsonb[])
    ON CONFLICT (id) DO NOTHING
    RETURNING id`,
};

let pool;
let io;

/** Store the items of a webhook (committed when this returns), then show the new ones to whoever follows them. */
export async function store(webhook) {
  const items = itemsOf(webhook);
  if (items.length === 0) return;
  const columns = ["id", "endpoint", "contact", "kind"].map((name) => items.map((item) => item[name]));
  const bodies = items.map((item) => JSON.stringify(item.body));
  const { rows } = await pool.query({ ...INSERT, values: [...columns, bodies] });
  const fresh = new Set(rows.map((row) => row.id));
  for (const item of items) {
    if (fresh.has(item.id)) io.to(["tenant", `conversation:${item.contact}`]).emit("event", item);
  }
}

function itemsOf(webhook) {
  const items = [];
  for (const { changes } of webhook.entry) {
    for (const { value } of changes) {
      const endpoint = value.metadata.phone_number_id;
      for (const body of value.messages ?? []) items.push({ id: body.id, endpoint, contact: body.from, kind: body.type, body });
      for (const body of value.statuses ?? []) {
        items.push({ id: `${body.id}/${body.status}`, endpoint, contact: body.recipient_id, kind: "status", body });
      }
    }
  }
  return items;
}

function signed(body, header = "") {
  const wanted = Buffer.from(`sha256=${createHmac("sha256", APP_SECRET).update(body).digest("hex")}`);
  const shown = Buffer.from(header);
  return shown.length === wanted.length && timingSafeEqual(shown, wanted);
}

/**
 * Serve; `accept` gets each signed body as bytes, and 200 is answered when it returns. What it throws is 500: Meta sends it again.
 * Returns whether this process serves: with several, the first one only starts the others.
 */
export async function serve(accept) {
  if (WORKERS > 1 && cluster.isPrimary) {
    await createTable();
    setupPrimary();
    for (let each = 0; each < WORKERS; each++) cluster.fork();
    return false;
  }
  if (WORKERS === 1) await createTable();
  pool = new pg.Pool({ connectionString: DATABASE_URL, max: Number(process.env.POOL ?? 10) });

  const app = express();
  app.disable("x-powered-by");
  app.post("/webhooks/whatsapp", express.raw({ type: "*/*", limit: "16mb" }), async (request, response) => {
    if (!signed(request.body, request.get("x-hub-signature-256"))) return response.sendStatus(401);
    await accept(request.body);
    return response.sendStatus(200);
  });

  const server = createServer(app);
  io = new Server(server);
  if (WORKERS > 1) io.adapter(createAdapter());
  io.on("connection", (socket) => {
    socket.on("subscribe", ({ topics }, answer) => {
      socket.join(topics);
      answer({ type: "subscribed", offset: 0 });
    });
    socket.emit("welcome", { protocol: 1 });
  });
  server.listen(PORT, "127.0.0.1");
  return true;
}

async function createTable() {
  const client = new pg.Client(DATABASE_URL);
  await client.connect();
  await client.query(TABLE);
  await client.end();
}
