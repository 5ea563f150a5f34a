"use strict";
let planner;

const said = (at, size) => new TextDecoder().decode(new Uint8Array(planner.memory.buffer, at, size));
const error = (message, hint) => Object.assign(new Error(message), { hint });

function room(size) {
  const at = planner.room(size) >>> 0;
  if (!at) throw error("the browser does not give this page enough memory for " + size + " bytes", "close other pages, or plan with the program");
  return at;
}

function ask(question) {
  const text = new TextEncoder().encode(JSON.stringify(question));
  const at = room(text.length);
  new Uint8Array(planner.memory.buffer).set(text, at);
  const size = planner.ask() >>> 0;
  const reply = JSON.parse(said(planner.reply() >>> 0, size));
  if (reply.error) throw error(reply.error.message, reply.error.hint);
  return reply.ok;
}

// Copies a part of a file into the planner, a few megabytes at a time.
async function keep(file, from, size) {
  const most = 8 << 20;
  const at = room(size);
  for (let done = 0; done < size; done += most) {
    const part = await file.slice(from + done, from + Math.min(done + most, size)).arrayBuffer();
    new Uint8Array(planner.memory.buffer).set(new Uint8Array(part), at + done);
  }
  planner.keep();
}

async function open([model, ...beside]) {
  ask("close");
  await keep(model, 0, model.size);
  for (const piece of ask({ open: model.name }).pieces) {
    const file = beside.find((file) => file.name === piece.file.split("/").pop());
    if (!file) continue;
    if (piece.offset + piece.length > file.size) {
      throw error(file.name + " is " + file.size + " bytes long, expected " + piece.length + " from byte " + piece.offset + " on");
    }
    await keep(file, piece.offset, piece.length);
    ask({ piece });
  }
  return ask("read");
}

onmessage = async ({ data: { wasm, files, question } }) => {
  try {
    if (wasm) planner = (await WebAssembly.instantiate(wasm, {})).instance.exports;
    postMessage({ ok: wasm ? ask("policies") : files ? await open(files) : ask(question) });
  } catch (problem) {
    if (!(problem instanceof WebAssembly.RuntimeError || problem instanceof RangeError)) {
      return postMessage({ error: { message: problem.message, hint: problem.hint } });
    }
    const size = planner.failure_size() >>> 0;
    const what = size ? said(planner.failure() >>> 0, size) : problem.message;
    postMessage({ dead: true, error: { message: "the planner failed: " + what, hint: "this is a defect of freeze-plan; please report it with the model and the settings" } });
  }
};
