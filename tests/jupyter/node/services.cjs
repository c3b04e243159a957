// What JupyterLab's own library does at a server, in Node: each step says what came of it, as a line of JSON.
// Arguments: the server's address, and its token.
"use strict";
const { KernelManager, ServerConnection, ServiceManager, SessionManager, UserAPI } = require("@jupyterlab/services");

const [baseUrl, token] = process.argv.slice(2);
const wsUrl = baseUrl.replace("http", "ws");
const serverSettings = ServerConnection.makeSettings({ baseUrl, wsUrl, token, appendToken: true });

const NUMBERS = "import time\nfor number in range(1000):\n    print(number, flush=True)\n    time.sleep(0.001)";

function tell(step, value) {
  console.log(JSON.stringify([step, value]));
}

// Run code; resolves to its outputs, its reply's status and its count. `onText` sees what is printed.
async function run(kernel, code, { onText = () => {}, answer } = {}) {
  const outputs = [];
  const future = kernel.requestExecute({ code, allow_stdin: answer !== undefined });
  future.onIOPub = ({ header, content }) => {
    if (header.msg_type === "stream") {
      outputs.push(content.text);
      onText(outputs.join(""));
    } else if (header.msg_type === "execute_result" || header.msg_type === "display_data") {
      outputs.push(content.data["text/plain"]);
    } else if (header.msg_type === "error") {
      outputs.push(content.ename);
    }
  };
  future.onStdin = (message) => {
    outputs.push(message.content.prompt);
    kernel.sendInputReply({ status: "ok", value: answer }, message.header);
  };
  const reply = await future.done;
  return [outputs.join(""), reply.content.status, reply.content.execution_count];
}

async function useKernel() {
  const manager = new KernelManager({ serverSettings });
  await manager.ready;
  const kernel = await manager.startNew({ name: "python3" });
  tell("language", (await kernel.info).language_info.name);
  tell("protocol", kernel._ws.protocol);
  tell("result", await run(kernel, "print('a'); 6 * 7"));
  tell("input", await run(kernel, "print('hello', input('Who? '))", { answer: "Ada" }));
  let isInterrupted = false;
  const onText = () => {
    if (!isInterrupted) {
      isInterrupted = true;
      kernel.interrupt();
    }
  };
  tell("interrupted", await run(kernel, "import time\nprint('on')\nwhile True: time.sleep(0.1)", { onText }));
  await kernel.restart();
  tell("restarted", await run(kernel, "'time' in dir()"));
  let isCut = false;
  const cut = (text) => {
    if (!isCut && text.includes("\n200\n")) {
      isCut = true;
      kernel._ws.terminate();
    }
  };
  const [lines, status] = await run(kernel, NUMBERS, { onText: cut });
  tell("cut", [isCut, status, lines]);
  tell("listed", [...manager.running()].map((each) => each.id === kernel.id));
  await kernel.shutdown();
  await manager.refreshRunning();
  tell("left", [...manager.running()].length);
  manager.dispose();
}

async function useSession() {
  const kernelManager = new KernelManager({ serverSettings });
  const manager = new SessionManager({ serverSettings, kernelManager });
  await manager.ready;
  const session = await manager.startNew({ path: "a.ipynb", name: "a", type: "notebook", kernel: { name: "python3" } });
  tell("session", await run(session.kernel, "import os; os.path.basename(os.environ['JPY_SESSION_NAME'])"));
  await session.setPath("b.ipynb");
  await manager.refreshRunning();
  tell("paths", [...manager.running()].map((each) => each.path));
  const before = session.kernel.id;
  await session.changeKernel({ name: "python3" });
  tell("changed", [before !== session.kernel.id, await run(session.kernel, "1 + 1")]);
  await session.shutdown();
  manager.dispose();
  kernelManager.dispose();
}

async function useAll() {
  const manager = new ServiceManager({ serverSettings });
  await manager.ready;
  // Its `user` reads the browser's storage, and is never ready in Node.
  tell("user", (await new UserAPI.UserAPIClient({ serverSettings }).get()).identity.username);
  tell("default", manager.kernelspecs.specs.default);
  manager.dispose();
}

(async () => {
  await useAll();
  await useKernel();
  await useSession();
  // What LS leaves behind of timers would keep Node.
  process.exit(0);
})();
