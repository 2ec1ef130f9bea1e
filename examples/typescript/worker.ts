#!/usr/bin/env node
/* The smallest worker of one's own in TypeScript: Node.js 22.18 or later runs it as it is (older ones of 22 with
 * --experimental-strip-types), without any package, and with the pinfold command line.
 *
 * It polls, makes or resumes a sandbox for each session, runs the agent's bash calls in it, one `pinfold exec` each (so without
 * a persistent shell), and keeps its files in a checkpoint. To begin with, not to end with: pinfold-worker does it all.
 *
 * usage: ANTHROPIC_ENVIRONMENT_ID=… ANTHROPIC_ENVIRONMENT_KEY=… node worker.ts [--once] [PINFOLD OPTION...] */

import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';

type Event = { id: string; type: string; [member: string]: any };
type Work = { id: string; secret?: string | null; data: { type: string; id: string } };
type Outcome = { code: number; stdout: string; stderr: string };

const BASE = process.env.ANTHROPIC_BASE_URL ?? 'https://api.anthropic.com';
const ENV = process.env.ANTHROPIC_ENVIRONMENT_ID!;
const KEY = process.env.ANTHROPIC_ENVIRONMENT_KEY!;
// What is started from here, and the sandboxes, have no use for them.
for (const name of Object.keys(process.env)) if (name.startsWith('ANTHROPIC_')) delete process.env[name];
const IDLE_MS = 1000 * Number(process.env.MAX_IDLE ?? 60);
const ONCE = process.argv.includes('--once');
const OPTIONS = process.argv.slice(2).filter((a) => a !== '--once');

class HttpError extends Error {
  readonly status: number;
  constructor(status: number, what: string) {
    super(`${what}: HTTP ${status}`);
    this.status = status;
  }
}

async function send(method: string, path: string, bearer: string, body?: object, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = {
    authorization: `Bearer ${bearer}`, accept: 'application/json', 'user-agent': 'example-worker/1',
    'anthropic-version': '2023-06-01', 'anthropic-beta': 'managed-agents-2026-04-01', 'anthropic-worker-id': 'example',
  };
  if (body) headers['content-type'] = 'application/json';
  const answer = await fetch(BASE + path, {
    method, headers, body: method === 'POST' ? (body ? JSON.stringify(body) : '') : undefined, signal,
  });
  if (!answer.ok) throw new HttpError(answer.status, `${method} ${path}`);
  return answer;
}

async function call(method: string, path: string, bearer: string, body?: object): Promise<any> {
  const text = await (await send(method, path, bearer, body, AbortSignal.timeout(120_000))).text();
  return text ? JSON.parse(text) : null;
}

function pinfold(...args: string[]): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    execFile('pinfold', [...OPTIONS, ...args], { maxBuffer: 64 << 20 }, (error, stdout, stderr) => {
      if (error && typeof error.code !== 'number') reject(error);
      else resolve({ code: error ? Number(error.code) : 0, stdout, stderr });
    });
  });
}

async function must(...args: string[]): Promise<void> {
  const r = await pinfold(...args);
  if (r.code !== 0) throw new Error(r.stderr.trim());
}

/** Heartbeats, each naming the one before. lost: nothing may be posted any more. over: it is to end. */
class Lease {
  lost = false;
  readonly ended = new AbortController();
  #path: string;
  #token: string;
  #last = 'NO_HEARTBEAT';
  #ttl = 90;
  #good = Date.now();

  constructor(work: string, token: string) {
    this.#path = `/v1/environments/${ENV}/work/${work}`;
    this.#token = token;
  }
  get over(): boolean {
    return this.ended.signal.aborted;
  }
  async beat(): Promise<void> {
    let over = false;
    try {
      const r = await call('POST', `${this.#path}/heartbeat?expected_last_heartbeat=${encodeURIComponent(this.#last)}`, this.#token);
      [this.#last, this.#ttl, this.#good] = [r.last_heartbeat, r.ttl_seconds, Date.now()];
      over = r.state === 'stopping' || r.state === 'stopped' || !r.lease_extended;
    } catch (e) {
      this.lost ||= e instanceof HttpError && e.status === 412;
    }
    this.lost ||= Date.now() - this.#good > this.#ttl * 1000;
    if (over || this.lost) this.ended.abort();
  }
  async keep(): Promise<void> {
    while (!this.over) {
      await sleep(1000 * Math.min(30, Math.max(1, this.#ttl / 2)), undefined, { signal: this.ended.signal }).catch(() => {});
      if (!this.over) await this.beat();
    }
  }
  async stop(): Promise<void> {
    if (this.lost) return;
    await call('POST', `${this.#path}/stop`, this.#token, { force: true }).catch((e) => {
      if (!(e instanceof HttpError && e.status === 409)) throw e;
    });
  }
}

/** The history after the stream was opened, then the stream. */
async function* events(session: string, token: string, signal: AbortSignal): AsyncGenerator<Event> {
  const stream = await send('GET', `/v1/sessions/${session}/events/stream`, token, undefined, signal);
  for (let page: string | null = ''; page !== null; ) {
    const r = await call('GET', `/v1/sessions/${session}/events?limit=1000${page && '&page=' + page}`, token);
    yield* r.data;
    page = r.next_page;
  }
  yield { id: '', type: 'history_read' };
  let rest = '';
  for await (const chunk of stream.body!.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop()!;
    for (const line of lines) if (line.startsWith('data:')) yield JSON.parse(line.slice(5));
  }
}

async function runCalls(session: string, token: string, lease: Lease): Promise<void> {
  const calls: Event[] = [], seen = new Set<string>(), answered = new Set<string>();
  let history = true, idle: ReturnType<typeof setTimeout> | undefined;
  const end = new AbortController();
  const signal = AbortSignal.any([end.signal, lease.ended.signal]);

  try {
    for await (const event of events(session, token, signal)) {
      if (event.type === 'history_read') history = false;
      else if (event.type === 'agent.tool_use' && !seen.has(event.id)) calls.push(event);
      else if (event.type === 'user.tool_result') answered.add(event.tool_use_id);
      else if (event.type === 'session.status_terminated' || event.type === 'session.deleted') return;
      seen.add(event.id);
      if (event.type !== 'ping' && event.type !== 'history_read') {
        clearTimeout(idle);
        idle = undefined;
        if (event.type === 'session.status_idle' && event.stop_reason.type !== 'requires_action')
          idle = setTimeout(() => end.abort(), IDLE_MS);
      }
      while (calls.length && !history) {
        const c = calls.shift()!;
        // What is not plainly allowed is not run; confirmations are left out of this example.
        if (answered.has(c.id) || c.name !== 'bash' || (c.evaluated_permission ?? 'allow') !== 'allow') continue;
        clearTimeout(idle);
        const r = await pinfold('exec', session, '--timeout', '120s', '--', '/bin/bash', '-c', c.input.command + '\n');
        if (lease.lost) return;
        const text = (r.stdout + r.stderr).replace(/\n+$/, '') || (r.code ? `exit ${r.code}` : '(no output)');
        await call('POST', `/v1/sessions/${session}/events`, token, { events: [{
          type: 'user.tool_result', tool_use_id: c.id, is_error: r.code !== 0,
          content: [{ type: 'text', text: text.slice(-100_000) }],
        }] });
      }
    }
  } catch (e) {
    if (!signal.aborted) throw e;
  } finally {
    clearTimeout(idle);
    end.abort();
  }
}

async function work(item: Work): Promise<void> {
  const session = item.data.id;
  const token = item.secret ? JSON.parse(Buffer.from(item.secret, 'base64url').toString()).sessions_token : KEY;
  const lease = new Lease(item.id, token);
  await lease.beat();
  const kept = lease.keep();
  try {
    if (lease.over || (await call('GET', `/v1/sessions/${session}`, token)).status === 'terminated') return;
    if ((await pinfold('create', session, '--from', 'latest')).code !== 0) await must('create', session, '--reuse');
    await runCalls(session, token, lease);
    if (!lease.lost) {
      await must('snapshot', session);
      await must('destroy', session);
    }
  } finally {
    lease.ended.abort();
    await kept;
    await lease.stop();
  }
}

for (;;) {
  const item: Work | null = await call('GET', `/v1/environments/${ENV}/work/poll?block_ms=999&reclaim_older_than_ms=5000`, KEY);
  if (!item) {
    await sleep(1000 + 2000 * Math.random());
    continue;
  }
  await call('POST', `/v1/environments/${ENV}/work/${item.id}/ack`, KEY);
  if (item.data.type === 'session') await work(item);
  if (ONCE) break;
}
