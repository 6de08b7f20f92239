// Peer: Express + pg + Socket.IO. Everything is committed to PostgreSQL before the answer.

import { serve, store } from "./whatsapp.mjs";

await serve((body) => store(JSON.parse(body)));
