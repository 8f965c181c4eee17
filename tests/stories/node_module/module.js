// A module of Unwind in JavaScript: it prints parcel labels. Written from docs/wire.md and contracts/schema alone.
//
//   AMQP_URL=amqp://... JOURNAL=/path/journal.jsonl node module.js
//
// Its database is a journal: one line, flushed to disk, is one commit that holds handled keys, effects and replies.

import { randomUUID } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, truncateSync, writeSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import amqplib from 'amqplib';

const MODULE = 'labels';
const QUEUE = `${MODULE}.commands.v1`;
const COMMANDS = ['labels.PrintLabelV1', 'labels.VoidLabelV1'];
const UNDO = '/undo';

// ------------------------------------------------------------------------------------------------------- the journal

class Journal {
  constructor(path) {
    this.handled = new Map(); // `${tenant}\n${key}` -> { reply, type, success, receipt } or { tombstone: true }
    this.labels = new Map(); // label id -> order id
    const text = existsSync(path) ? readFileSync(path, 'utf8') : '';
    const whole = text.slice(0, text.lastIndexOf('\n') + 1); // what follows the last line end was torn by a crash
    if (whole.length < text.length) truncateSync(path, Buffer.byteLength(whole));
    for (const line of whole.split('\n')) if (line) this.#apply(JSON.parse(line));
    this.file = openSync(path, 'a');
  }

  find(tenant, key) {
    return this.handled.get(`${tenant}\n${key}`);
  }

  commit(entries) {
    writeSync(this.file, `${JSON.stringify(entries)}\n`);
    fsyncSync(this.file);
    this.#apply(entries);
  }

  close() {
    closeSync(this.file);
  }

  #apply(entries) {
    for (const entry of entries) {
      if (entry.handled) this.handled.set(`${entry.tenant}\n${entry.key}`, entry.handled);
      if (entry.printed) this.labels.set(entry.printed, entry.order);
      if (entry.voided) this.labels.delete(entry.voided);
    }
  }
}

// ------------------------------------------------------------------------------------------------------ the envelope

class Unreadable extends Error {}

function parse(content) {
  if (content.length > 256 * 1024) throw new Unreadable('body is over 256 KiB');
  let envelope;
  try {
    envelope = JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(content));
  } catch (error) {
    throw new Unreadable(`body is not JSON: ${error.message}`);
  }
  if (envelope === null || typeof envelope !== 'object') throw new Unreadable('body is no object');
  for (const name of ['id', 'source', 'type', 'tenantid', 'time']) {
    if (typeof envelope[name] !== 'string' || !envelope[name]) throw new Unreadable(`${name} is missing`);
  }
  if (envelope.specversion !== '1.0') throw new Unreadable('specversion must be 1.0');
  return envelope;
}

function answer(command, name, data) {
  const envelope = {
    specversion: '1.0',
    id: randomUUID(),
    source: `/modules/${MODULE}`,
    type: `${MODULE}.${name}`,
    time: new Date().toISOString(),
    datacontenttype: 'application/json',
    tenantid: command.tenantid,
    correlationid: command.correlationid,
    causationid: command.id,
    traceparent: command.traceparent,
    data,
  };
  return { type: envelope.type, bytes: JSON.stringify(envelope) };
}

// ----------------------------------------------------------------------------------------------------------- the work

const jams = new Map(); // how often an order has jammed the printer

function handle(journal, command) {
  const tenant = command.tenantid;
  const key = command.subject ?? command.id;
  const known = journal.find(tenant, key);
  if (known?.tombstone) {
    return answer(command, 'LabelRefusedV1', { code: 'undone_before_done', message: 'it was voided before it came' });
  }
  if (known) return { type: known.type, bytes: known.reply };
  return command.type === 'labels.VoidLabelV1' ? voidLabel(journal, command, key) : printLabel(journal, command, key);
}

function printLabel(journal, command, key) {
  const { order_id: order, weight_grams: weight } = command.data ?? {};
  if (typeof order !== 'string' || !Number.isInteger(weight)) throw new Unreadable('data does not fit PrintLabelV1');
  if (order.startsWith('jam') && !jams.has(order)) {
    jams.set(order, 1);
    return answer(command, 'PrinterJammedV1', { code: 'printer_jammed', message: 'try again' }); // not remembered
  }
  const entry = { tenant: command.tenantid, key };
  if (weight > 30_000) {
    const reply = answer(command, 'LabelRefusedV1', { code: 'too_heavy', message: 'at most 30 kg' });
    journal.commit([{ ...entry, handled: { type: reply.type, reply: reply.bytes, success: false } }]);
    return reply;
  }
  const receipt = { label_id: `lbl_${randomUUID()}`, order_id: order };
  const reply = answer(command, 'LabelPrintedV1', receipt);
  journal.commit([
    { ...entry, handled: { type: reply.type, reply: reply.bytes, success: true, receipt } },
    { printed: receipt.label_id, order },
  ]);
  return reply;
}

function voidLabel(journal, command, key) {
  const tenant = command.tenantid;
  const doKey = key.endsWith(UNDO) ? key.slice(0, -UNDO.length) : key;
  const done = journal.find(tenant, doKey);
  const label = done?.success ? done.receipt.label_id : null;
  const reply = answer(command, 'LabelVoidedV1', { label_id: label });
  const entries = [{ tenant, key, handled: { type: reply.type, reply: reply.bytes, success: true } }];
  if (label) entries.push({ voided: label });
  if (!done) entries.push({ tenant, key: doKey, handled: { tombstone: true } });
  journal.commit(entries);
  return reply;
}

// ------------------------------------------------------------------------------------------------------------ the bus

async function declare(channel) {
  await channel.assertExchange('unwind.unrouted', 'fanout', { durable: true });
  await channel.assertExchange('unwind.dead', 'topic', { durable: true });
  for (const name of ['unwind.events', 'unwind.commands']) {
    await channel.assertExchange(name, 'topic', { durable: true, alternateExchange: 'unwind.unrouted' });
  }
  await channel.assertQueue(QUEUE, {
    durable: true,
    arguments: {
      'x-queue-type': 'quorum',
      'x-delivery-limit': 20,
      'x-dead-letter-exchange': 'unwind.dead',
      'x-dead-letter-strategy': 'at-least-once',
      'x-overflow': 'reject-publish',
    },
  });
  for (const type of COMMANDS) await channel.bindQueue(QUEUE, 'unwind.commands', type);
}

function send(channel, returned, reply, userId) {
  const messageId = randomUUID();
  return new Promise((resolve, reject) => {
    const options = { persistent: true, mandatory: true, messageId, contentType: 'application/cloudevents+json', userId };
    channel.publish('unwind.events', reply.type, Buffer.from(reply.bytes), options, (error) => {
      if (returned.delete(messageId)) resolve('unroutable');
      else if (error) reject(error);
      else resolve('confirmed');
    });
  });
}

async function serve(url, journal, stopping) {
  const connection = await amqplib.connect(url, { heartbeat: 5, timeout: 5000 });
  const lost = new Promise((resolve) => connection.on('close', resolve));
  connection.on('error', (error) => console.error(`connection: ${error.message}`));
  const channel = await connection.createConfirmChannel();
  channel.on('error', (error) => console.error(`channel: ${error.message}`));
  channel.on('close', () => connection.close().catch(() => {}));
  const returned = new Set();
  channel.on('return', (message) => returned.add(message.properties.messageId));
  const login = decodeURIComponent(new URL(url).username);
  const userId = login === `module-${MODULE}` ? login : undefined;
  const inHand = new Set();

  async function settle(message) {
    let reply;
    try {
      const command = parse(message.content);
      if (!COMMANDS.includes(command.type)) throw new Unreadable(`${command.type} is not handled here`);
      reply = handle(journal, command);
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error;
      console.error(`dead letter: ${error.message}`);
      channel.reject(message, false);
      return;
    }
    for (let delay = 200; (await send(channel, returned, reply, userId)) !== 'confirmed'; delay *= 2) {
      await pause(Math.min(delay, 5000));
    }
    channel.ack(message);
  }

  await declare(channel);
  await channel.prefetch(32);
  const { consumerTag } = await channel.consume(QUEUE, (message) => {
    if (message === null) return connection.close().catch(() => {}); // the queue was deleted: begin anew
    // A lost channel is no error: the command comes again, and the journal knows it.
    const work = settle(message).catch((error) => console.error(`left for redelivery: ${error.message}`));
    inHand.add(work);
    work.finally(() => inHand.delete(work));
  });
  console.log('ready');
  if ((await Promise.race([lost.then(() => 'lost'), stopping])) === 'lost') return;
  await channel.cancel(consumerTag);
  await Promise.all(inHand);
  await channel.close();
  await connection.close().catch(() => {});
}

async function main() {
  const journal = new Journal(process.env.JOURNAL ?? 'journal.jsonl');
  let ended = false;
  const stopping = new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT']) {
      process.once(signal, () => {
        ended = true;
        resolve('stopping');
      });
    }
  });
  for (let delay = 200; !ended; delay = Math.min(delay * 2, 5000)) {
    try {
      await serve(process.env.AMQP_URL, journal, stopping);
      delay = 200;
    } catch (error) {
      console.error(`the bus is away: ${error.message}`);
    }
    if (!ended) await Promise.race([pause(delay), stopping]);
  }
  journal.close();
}

await main();
