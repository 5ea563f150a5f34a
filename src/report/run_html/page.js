
(() => {
  const show = {
    plain: (value) => String(Number(value.toPrecision(4))),
    percent: (value) => (100 * value).toFixed(2) + " %",
    seconds: (value) => (Math.abs(value) < 1 ? Number((1e3 * value).toPrecision(4)) + " ms" : Number(value.toPrecision(4)) + " s"),
    bytes: (value) => (value < 1e9 ? (value / 1e6).toFixed(1) + " MB" : (value / 1e9).toFixed(2) + " GB"),
  };
  const SIZE = 10000;
  for (const area of document.querySelectorAll(".area[data-x]")) {
    const [x0, x1] = area.dataset.x.split(" ").map(Number);
    const [y0, y1] = area.dataset.y.split(" ").map(Number);
    const value = (y) => {
      const part = 1 - y / SIZE;
      return area.dataset.log === "1" ? y0 * Math.pow(y1 / y0, part) : y0 + (y1 - y0) * part;
    };
    let lines;
    const cursor = document.createElement("i");
    const tip = document.createElement("div");
    cursor.className = "cursor";
    tip.className = "tip";
    tip.setAttribute("role", "status");
    cursor.hidden = tip.hidden = true;
    area.append(cursor, tip);
    const read = (path) => {
      const points = [...path.getAttribute("d").matchAll(/(-?\d+) (-?\d+)/g)].map((found) => [Number(found[1]), Number(found[2])]);
      return { name: path.dataset.n, points };
    };
    const at = (place) => {
      lines ??= [...area.querySelectorAll("path[data-n]")].map(read).filter((line) => line.points.length > 0);
      const near = (line) => line.points.reduce((best, next) => (Math.abs(next[0] - place) < Math.abs(best[0] - place) ? next : best));
      const found = lines.map((line) => ({ name: line.name, point: near(line) }));
      if (found.length === 0) return;
      const first = found.reduce((best, next) => (Math.abs(next.point[0] - place) < Math.abs(best.point[0] - place) ? next : best));
      const over = (x) => {
        const value = x0 + ((x1 - x0) * x) / SIZE;
        const whole = x1 - x0 >= 20 || area.dataset.over !== "second";
        return (whole ? Math.round(value) : Number(value.toPrecision(3))).toLocaleString("en");
      };
      const told = (line) => {
        const name = found.length > 1 ? line.name + ": " : "";
        const other = over(line.point[0]) === over(first.point[0]) ? "" : " (" + area.dataset.over + " " + over(line.point[0]) + ")";
        return name + show[area.dataset.form](value(line.point[1])) + other;
      };
      const rows = found.filter((line) => Math.abs(line.point[0] - first.point[0]) < SIZE / 40);
      const texts = [area.dataset.over + " " + over(first.point[0]), ...rows.map(told)];
      tip.replaceChildren(
        ...texts.map((text) => {
          const row = document.createElement("p");
          row.textContent = text;
          return row;
        })
      );
      cursor.style.left = first.point[0] / 100 + "%";
      const right = first.point[0] > SIZE / 2;
      tip.style.left = right ? "auto" : "calc(" + first.point[0] / 100 + "% + .5rem)";
      tip.style.right = right ? "calc(" + (100 - first.point[0] / 100) + "% + .5rem)" : "auto";
      cursor.hidden = tip.hidden = false;
      return first.point[0];
    };
    const hide = () => (cursor.hidden = tip.hidden = true);
    area.addEventListener("pointermove", (event) => {
      const box = area.getBoundingClientRect();
      at(((event.clientX - box.left) / box.width) * SIZE);
    });
    area.addEventListener("pointerleave", hide);
    area.addEventListener("blur", hide);
    area.tabIndex = 0;
    let place = SIZE;
    area.addEventListener("focus", () => (place = at(place) ?? place));
    area.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!way || !lines) return;
      event.preventDefault();
      const places = lines.flatMap((line) => line.points.map((point) => point[0])).filter((other) => way * (other - place) > 0);
      if (places.length > 0) place = at(way > 0 ? Math.min(...places) : Math.max(...places)) ?? place;
    });
  }
})();
