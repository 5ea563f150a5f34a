
(() => {
  const root = document.documentElement;
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];
  const readout = document.querySelector(".readout");
  const rows = all("tr[data-from]");
  const names = all("thead th").map((cell) => cell.textContent);

  const show = (epoch, epochs) => {
    root.classList.add("scrubbed");
    root.style.setProperty("--at", (100 * (epoch - 0.5)) / epochs + "%");
    for (const row of rows) {
      const here = epoch >= Number(row.dataset.from) && epoch <= Number(row.dataset.to);
      row.classList.toggle("here", here);
      if (here && readout) {
        const cells = [...row.children].map((cell, index) => names[index] + " " + cell.textContent);
        readout.textContent = "epoch " + epoch + ": " + cells.slice(1).join(", ");
        readout.hidden = false;
      }
    }
  };
  for (const area of all("[data-plot]")) {
    const epochs = Number(area.dataset.plot);
    area.addEventListener("pointermove", (event) => {
      const box = area.getBoundingClientRect();
      const at = Math.floor(((event.clientX - box.left) / box.width) * epochs) + 1;
      show(Math.min(epochs, Math.max(1, at)), epochs);
    });
    area.addEventListener("pointerleave", () => {
      root.classList.remove("scrubbed");
      rows.forEach((row) => row.classList.remove("here"));
    });
  }

  const tree = document.querySelector(".tree");
  const tools = document.querySelector(".tools");
  if (!tree || !tools) return;
  tools.hidden = false;
  const units = all("[data-p]", tree).map((row) => ({ row, text: row.dataset.p.toLowerCase() }));
  const modules = all("details", tree);
  const before = modules.map((module) => module.open);
  const input = tools.querySelector("input");
  const found = tools.querySelector(".found");
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const { row, text } of units) {
      row.hidden = !words.every((word) => text.includes(word));
      count += row.hidden ? 0 : 1;
    }
    modules.forEach((module, index) => {
      module.hidden = words.length > 0 && !module.querySelector("[data-p]:not([hidden])");
      module.open = words.length > 0 ? true : before[index];
    });
    found.textContent = words.length > 0 ? count + " of " + units.length : "";
  };
  input.addEventListener("input", filter);
  tools.addEventListener("click", (event) => {
    const open = event.target.dataset.open;
    if (open === undefined) return;
    modules.forEach((module, index) => (before[index] = module.open = open === "1"));
  });
})();
