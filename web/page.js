"use strict";
(() => {
  const by = (id) => document.getElementById(id);
  const make = (tag, values = {}, ...inside) => {
    const element = Object.assign(document.createElement(tag), values);
    element.append(...inside);
    return element;
  };
  const form = by("form");
  const fields = form.elements;
  let policies = [], wasm, worker, answer;
  let files = [], file, opened, latest, page;

  const unpack = async () => {
    const packed = Uint8Array.from(atob(by("wasm").textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    wasm = await new Response(stream).arrayBuffer();
  };

  // One question at a time: `plan` runs in turns.
  const ask = (message) => new Promise((resolve, reject) => {
    answer = ({ ok, error, dead }) => {
      if (!error) return resolve(ok);
      if (dead) start();
      reject(error);
    };
    worker.postMessage(message);
  });
  const start = () => {
    worker?.terminate();
    opened = null;
    const source = new Blob([by("worker").textContent], { type: "text/javascript" });
    const url = URL.createObjectURL(source);
    worker = new Worker(url);
    URL.revokeObjectURL(url);
    worker.onmessage = ({ data }) => answer(data);
    worker.onerror = (event) => answer({ dead: true, error: { message: "the planner cannot start: " + event.message } });
    ready = ask({ wasm });
  };
  let ready;

  const size = (bytes) => (bytes < 1e6 ? Math.ceil(bytes / 1e3) + " kB" : (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0) + " MB");
  const status = (text) => {
    by("status").textContent = text;
    by("tools").hidden = !text;
  };
  // A failure stands where its cause was given: the file, or the settings.
  const fail = (error) => {
    (opened ? form : document.querySelector(".drop")).after(by("error"));
    by("error").replaceChildren(make("p", { textContent: error.message }));
    if (error.hint) by("error").append(make("p", { textContent: error.hint }));
    const named = [...fields].find((field) => field.name && error.message.startsWith(field.name + " "));
    named?.setAttribute("aria-invalid", "true");
  };
  const clear = () => {
    by("error").replaceChildren();
    for (const field of fields) field.removeAttribute("aria-invalid");
  };

  const about = (name) => policies.find((policy) => policy.name === name);
  const field = (setting) => {
    const words = setting.kind === "word";
    const input = make(words ? "select" : "input", { name: setting.name });
    if (words) {
      input.append(make("option", { value: "", textContent: setting.default }));
      input.append(...setting.words.filter((word) => word !== setting.default).map((word) => make("option", { textContent: word })));
    } else {
      if (setting.kind !== "any") Object.assign(input, { type: "number", step: setting.kind === "count" ? "1" : "any", min: setting.least });
      if (setting.most !== undefined) input.max = setting.most;
      input.placeholder = setting.default;
    }
    input.dataset.kind = setting.kind;
    input.title = setting.range;
    return make("label", {}, setting.name, input, make("small", { textContent: setting.about }));
  };
  const showPolicy = () => {
    const policy = about(fields.policy.value);
    by("about").textContent = policy.about;
    by("card").querySelector("pre").textContent = policy.card.trim();
    by("settings").replaceChildren(...policy.settings.map(field));
  };

  // One field for every size that is open and not the batch; one name is one size.
  const open = (input) => (input.shape || []).map((dim, index) => (typeof dim === "number" ? dim : index === 0 ? "batch" : dim || input.name + " " + index));
  const showSizes = () => {
    const names = [...new Set(opened.inputs.flatMap(open))].filter((dim) => typeof dim === "string" && dim !== "batch");
    const firsts = opened.inputs.map((input) => input.shape?.[0]);
    const before = Object.fromEntries([...by("sizes").querySelectorAll("input")].map((input) => [input.dataset.size, input.value]));
    const input = (name) => make("input", { type: "number", min: 1, step: "1", value: before[name] || "", placeholder: "open" });
    by("sizes").querySelector(".fields").replaceChildren(...names.filter((name) => !firsts.includes(name)).map((name) => {
      const made = input(name);
      made.dataset.size = name;
      const of = opened.inputs.filter((one) => open(one).includes(name)).map((one) => one.name);
      return make("label", {}, name, made, make("small", { textContent: "of " + of.join(", ") }));
    }));
    by("sizes").hidden = !names.length;
  };
  const shapes = (batch) => {
    const given = new Map([...by("sizes").querySelectorAll("input")].map((input) => [input.dataset.size, Number(input.value)]));
    const shape = (input) => [input.name, open(input).map((dim) => (typeof dim === "number" ? dim : dim === "batch" ? batch : given.get(dim) ?? batch))];
    const whole = ([, dims]) => dims.length && dims.every((dim) => dim > 0);
    return given.size ? opened.inputs.map(shape).filter(whole) : [];
  };

  const value = (input) => {
    if (input.validity.badInput || (input.type === "number" && input.validity.stepMismatch)) {
      input.setAttribute("aria-invalid", "true");
      throw { message: input.name.replaceAll("_", " ") + ": " + input.validationMessage };
    }
    if (input.type === "number") return Number(input.value);
    try {
      return JSON.parse(input.value);
    } catch {
      return input.value;
    }
  };
  const request = () => {
    const made = { options: { policy: fields.policy.value } };
    for (const name of ["epochs", "batch", "steps_per_epoch", "slots"]) if (fields[name].value || fields[name].validity.badInput) made[name] = value(fields[name]);
    for (const name of ["unit", "batch_norm"]) if (fields[name].value) made.options[name] = fields[name].value;
    for (const name of ["freeze", "keep"]) {
      const patterns = fields[name].value.split("\n").map((line) => line.trim()).filter(Boolean);
      if (patterns.length) made.options[name] = patterns;
    }
    for (const input of by("settings").querySelectorAll("input,select")) if (input.value || input.validity.badInput) made.options[input.name] = value(input);
    by("sizes").querySelectorAll("input").forEach(value);
    made.shapes = shapes(made.batch ?? 1);
    return made;
  };

  // The next plan replaces the last one when it knows its height, so that nothing flickers or jumps.
  const show = (html) => {
    const script = "<script>" + by("frame").textContent + "</" + "script>";
    const frame = make("iframe", { className: "waits", title: "Freeze plan of " + file.name });
    frame.setAttribute("sandbox", "allow-scripts");
    frame.srcdoc = html.replace("</body>", () => script + "</body>");
    by("plan").querySelectorAll(".waits").forEach((waiting) => waiting.remove());
    frame.onload = () => frame.className && reveal(frame);
    by("plan").append(frame);
  };
  // A browser may not lay out what nobody sees: without a height the plan takes that of the last one until it tells its own.
  const reveal = (frame, height) => {
    const others = [...by("plan").children].filter((other) => other !== frame);
    if (frame.className) {
      frame.style.height = others.find((other) => !other.className)?.style.height ?? "";
      for (const other of others) other.remove();
    }
    frame.className = "";
    if (height > 0) frame.style.height = height + "px";
  };
  addEventListener("message", ({ source, data }) => {
    const frame = [...by("plan").children].find((frame) => frame.contentWindow === source);
    if (frame) reveal(frame, data?.height);
  });

  const once = async () => {
    clear();
    if (!file) return;
    try {
      await ready;
      if (!opened) {
        if (file.size >= 2 ** 31) throw { message: file.name + " is " + size(file.size) + ", expected less than 2147 MB", hint: "an ONNX file is never larger; files with data beside it are read only where they must be" };
        status("reading " + file.name);
        opened = await ask({ files });
        showSizes();
      }
      const made = request();
      status("planning " + file.name);
      const from = performance.now();
      page = await ask({ question: { page: made } });
      latest = made;
      status("planned in " + Math.max(1, Math.round(performance.now() - from)) + " ms");
      document.title = "Freeze plan of " + file.name;
      by("plan").classList.remove("old");
      show(page);
    } catch (error) {
      fail(error.name ? { message: "cannot read " + file.name + ": " + error.message } : error);
      if (!opened) by("plan").replaceChildren();
      status(latest && opened ? "the plan below is of the settings before" : "");
      by("plan").classList.add("old");
    }
  };
  let running, again;
  const plan = async () => {
    again = true;
    if (running) return;
    running = true;
    while (again) {
      again = false;
      await once();
    }
    running = false;
  };

  const take = (given) => {
    const model = given.find((one) => /\.onnx$/i.test(one.name)) || given[0];
    if (!model) return;
    files = [model, ...given.filter((one) => one !== model)];
    file = model;
    opened = latest = page = null;
    document.documentElement.classList.add("has");
    by("name").textContent = file.name;
    const beside = files.slice(1).map((one) => " with " + one.name).join("");
    by("about-file").textContent = size(file.size) + beside + "; drop or choose another to replace it";
    by("file").value = "";
    plan();
  };
  by("file").addEventListener("change", (event) => take([...event.target.files]));
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    addEventListener(name, (event) => {
      event.preventDefault();
      document.documentElement.classList.toggle("over", name === "dragenter" || name === "dragover");
      if (name === "drop") take([...event.dataTransfer.files]);
    });
  }

  let later;
  form.addEventListener("input", (event) => {
    if (event.target === fields.policy) showPolicy();
    clearTimeout(later);
    later = setTimeout(plan, 150);
  });
  form.addEventListener("submit", (event) => event.preventDefault());

  const save = (name, text, type) => {
    const url = URL.createObjectURL(new Blob([text], { type }));
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  by("html").addEventListener("click", () => page && save("plan.html", page, "text/html"));
  by("json").addEventListener("click", async () => {
    if (!latest || running) return;
    running = true;
    try {
      save("plan.json", await ask({ question: { file: latest } }), "application/json");
    } catch (error) {
      fail(error);
    }
    running = false;
    if (again) plan();
  });

  (async () => {
    try {
      await unpack();
      start();
      policies = await ready;
      fields.policy.append(...policies.map((policy) => make("option", { textContent: policy.name })));
      showPolicy();
      document.documentElement.dataset.ready = "";
      if (file) plan();
    } catch (error) {
      fail({ message: "this browser cannot run the page: " + error.message });
    }
  })();
})();
