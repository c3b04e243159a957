// An agent as the official TypeScript SDK is one: each step says what came of it, as a line of JSON.
// Arguments: "http", the endpoint's address and token; or "stdio", and a command that is an MCP server.
"use strict";
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { CallToolResultSchema } = require("@modelcontextprotocol/sdk/types.js");

const [way, first, ...others] = process.argv.slice(2);

function tell(step, value) {
  console.log(JSON.stringify([step, value]));
}

function open() {
  if (way === "stdio") return new StdioClientTransport({ command: first, args: others, env: process.env, stderr: "ignore" });
  return new StreamableHTTPClientTransport(new URL(first), { requestInit: { headers: { Authorization: `Bearer ${others[0]}` } } });
}

const IMAGE = `import base64
from IPython.display import Image
Image(base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="))`;

(async () => {
  const agent = new Client({ name: "Ada", version: "2" });
  const transport = open();
  await agent.connect(transport);
  const call = async (name, args = {}) => (await agent.callTool({ name, arguments: args })).structuredContent;
  tell("server", agent.getServerVersion().name);
  tell("tools", (await agent.listTools()).tools.map((tool) => tool.name));
  if (way === "stdio") tell("started", (await call("start_session", { session_id: "s" })).session_id);

  tell("result", (await call("execute_code", { code: "x = 6\nx * 7" })).result);
  tell("failed", (await call("execute_code", { code: "1 / 0" })).error.name);
  const shown = await agent.callTool({ name: "execute_code", arguments: { code: IMAGE } });
  tell("content", shown.content.map((block) => [block.type, block.mimeType ?? null]));
  const refused = await agent.callTool({ name: "execute_code", arguments: { code: 5 } });
  tell("refused", [refused.isError, refused.structuredContent.error.code]);
  tell("unknown", await agent.callTool({ name: "nothing" }).then(() => null, (error) => error.code));

  // The SDK forgets a call's progress that comes together with its result, so the code goes on until it was heard.
  const progress = [];
  const heard = path.join(fs.mkdtempSync(path.join(os.tmpdir(), "agent-")), "heard");
  const onprogress = ({ message }) => {
    progress.push(message);
    fs.writeFileSync(heard, "");
  };
  const waits = `import os, time\nwhile not os.path.exists(${JSON.stringify(heard)}): time.sleep(0.01)`;
  const code = `print('on it', flush=True)\n${waits}`;
  await agent.callTool({ name: "execute_code", arguments: { code } }, CallToolResultSchema, { onprogress });
  tell("progress", progress.join(""));

  const stop = new AbortController();
  const sleep = { code: "print('begun', flush=True)\nimport time; time.sleep(1000)", timeout_s: 600 };
  const options = { signal: stop.signal, onprogress: () => stop.abort() };
  const cancelled = agent.callTool({ name: "execute_code", arguments: sleep }, CallToolResultSchema, options);
  tell("cancelled", await cancelled.then(() => false, () => true));
  // What waits when code is interrupted is dropped with it, so this must not wait.
  let after;
  do after = await call("evaluate_code", { code: "x" });
  while (after.error?.code === "RUNTIME_BUSY");
  tell("after", after.result);
  tell("history", (await call("get_session_history", { limit: 1 })).entries.map((entry) => entry.agent));

  if (way === "stdio") {
    const large = await agent.callTool({ name: "execute_code", arguments: { code: "print('a' * 100000)" } });
    const link = large.content.find((block) => block.type === "resource_link");
    tell("whole", (await agent.readResource({ uri: link.uri })).contents[0].text.length);
    tell("templates", (await agent.listResourceTemplates()).resourceTemplates.length);
  } else {
    await transport.terminateSession();
  }
  await agent.close();
  process.exit(0);
})();
