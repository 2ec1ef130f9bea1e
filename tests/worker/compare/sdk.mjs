// The SDK's own tools over the calls of a file: sdk.mjs WORKDIR CALLS OUT
import fs from 'node:fs';
import { betaAgentToolset20260401 } from '@anthropic-ai/sdk/tools/agent-toolset/node';

const [workdir, calls, out] = process.argv.slice(2);
const tools = betaAgentToolset20260401({ workdir });
const results = [];
for (const call of JSON.parse(fs.readFileSync(calls))) {
  const tool = tools.find((t) => t.name === call.name);
  try {
    const r = await tool.run(call.input, {});
    results.push([false, typeof r === 'string' ? r : r.map((b) => b.text).join('')]);
  } catch (e) {
    results.push([true, typeof e.content === 'string' ? e.content : e.message]);
  }
}
fs.writeFileSync(out, JSON.stringify(results));
process.exit(0);
