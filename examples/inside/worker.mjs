// A worker for one work item that runs in the sandbox: the platform's SDK as it is.
//
//   pinfold-worker --environment-id env_… --key-file KEY --config sandbox.json -- node /opt/agent/worker.mjs
//
// with @anthropic-ai/sdk beside this file, in the image or mounted at /opt/agent by sandbox.json. Who it works for stands in
// ANTHROPIC_* variables, which handleItem() reads; none of them is a credential.
import Anthropic from '@anthropic-ai/sdk';

const stop = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => stop.abort());

const worker = new Anthropic().beta.environments.work.worker({
  workdir: process.cwd(),
  maxIdleMs: Number(process.env.PINFOLD_MAX_IDLE_MS ?? 60_000),
});
await worker.handleItem({ signal: stop.signal });
