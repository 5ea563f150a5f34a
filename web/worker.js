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

async function open(file) {
  const piece = 8 << 20;
  planner.keep();
  const at = room(file.size);
  for (let from = 0; from < file.size; from += piece) {
    const read = await file.slice(from, from + piece).arrayBuffer();
    new Uint8Array(planner.memory.buffer).set(new Uint8Array(read), at + from);
  }
  planner.keep();
  return ask({ open: file.name });
}

onmessage = async ({ data: { wasm, file, question } }) => {
  try {
    if (wasm) planner = (await WebAssembly.instantiate(wasm, {})).instance.exports;
    postMessage({ ok: wasm ? ask("policies") : file ? await open(file) : ask(question) });
  } catch (problem) {
    if (!(problem instanceof WebAssembly.RuntimeError || problem instanceof RangeError)) {
      return postMessage({ error: { message: problem.message, hint: problem.hint } });
    }
    const size = planner.failure_size() >>> 0;
    const what = size ? said(planner.failure() >>> 0, size) : problem.message;
    postMessage({ dead: true, error: { message: "the planner failed: " + what, hint: "this is a mistake in freeze-plan, not in the model" } });
  }
};
