// Peer: Express + BullMQ + Redis, the usual advice: verify, put it on a queue, answer; a worker stores it.
//
// 200 means that Redis has the webhook. How durable that is is Redis' `appendfsync`, which the scenario sets and names: "everysec" is what
// BullMQ's users run, and may lose a second of what was answered; "always" is the promise the others give.
// The worker runs in the same process: on two cores another one only adds the way between them.

import { Queue, Worker } from "bullmq";
import { serve, store } from "./whatsapp.mjs";

const connection = { path: process.env.REDIS_SOCKET, maxRetriesPerRequest: null };
const options = { removeOnComplete: true, attempts: 20, backoff: { type: "exponential", delay: 1000 } };

const queue = new Queue("webhooks", { connection });
if (await serve((body) => queue.add("webhook", body.toString(), options))) {
  new Worker("webhooks", (job) => store(JSON.parse(job.data)), { connection, concurrency: 50 });
}
