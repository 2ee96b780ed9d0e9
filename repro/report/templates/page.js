"use strict";
const CHUNK = 200;
const words = text => text.toLowerCase().split(/\s+/).filter(Boolean);
const has = (haystack, needles) => needles.every(needle => haystack.includes(needle));
const collator = new Intl.Collator();
const key = (item, value) => {                               // made once for each item, not at each comparison
  const none = value === null || value === "" || value === "–", text = String(value);
  return {item, none, text, number: typeof value === "number" ? value : /^[-+]?[\d.]+(?!\w)/.test(text) ? Number.parseFloat(text) : Number.NaN};  // no commit is a number
};
const order = (a, b) => Number.isNaN(a.number) || Number.isNaN(b.number) ? collator.compare(a.text, b.text) : a.number - b.number;
const sorted = (items, value, sign) => items                 // what is not there comes last, either way
  .map(item => key(item, value(item)))
  .sort((a, b) => a.none || b.none ? a.none - b.none : sign * order(a, b))
  .map(one => one.item);
const turn = button => {
  const head = button.parentElement, up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  return up ? 1 : -1;
};


for (const part of document.querySelectorAll("section")) {     // the filter of a section works on each of its tables
  const filter = part.querySelector("input.filter"), count = part.querySelector("output.count");
  if (!filter) continue;
  const tables = [...part.querySelectorAll("table.rows")].map(table => ({table, lines: [...table.querySelectorAll("tr.line")].map(line => (
    {line, cells: [...line.cells].map(cell => cell.firstChild ? cell.firstChild.textContent : ""), text: line.textContent.toLowerCase()}))}));
  const show = () => {
    const wanted = words(filter.value);
    for (const {lines} of tables) for (const item of lines) item.line.hidden = !has(item.text, wanted);
    for (const section of part.querySelectorAll("tr.section")) {
      let line = section.nextElementSibling, any = false;
      for (; line && line.className === "line"; line = line.nextElementSibling) any ||= !line.hidden;
      section.hidden = !any;
    }
    const lines = tables.filter(({table}) => table.classList.contains("compact")).flatMap(one => one.lines);
    count.value = `${lines.filter(item => !item.line.hidden).length} of ${lines.length} rows`;
  };
  filter.addEventListener("input", show);
  for (const {table, lines} of tables)
    [...table.tHead.querySelectorAll("button")].forEach((button, index) => button.addEventListener("click", () => {
      table.classList.add("sorted");                           // the paper's groups mean nothing in another order
      table.tBodies[0].append(...sorted(lines, item => item.cells[index], turn(button)).map(item => item.line));
    }));
  show();
}

const reveal = () => {                                         // a row that is linked to, though a filter or a switch hides it
  const line = document.querySelector("tr:target");
  if (!line || line.getClientRects().length) return;
  const part = line.closest("section"), filter = part.querySelector("input.filter");
  part.querySelector("input.wide").checked = false;
  if (line.hidden) { filter.value = ""; filter.dispatchEvent(new Event("input")); }
  line.scrollIntoView();
};
addEventListener("load", reveal);
addEventListener("hashchange", reveal);
document.addEventListener("click", event => {                  // the same link again changes no hash
  if (event.target.closest("a")?.hash === location.hash) reveal();
});

for (const plot of document.querySelectorAll("svg.plot")) {    // one stop of the tab key; arrows go from point to point
  const points = [...plot.querySelectorAll("a")], said = plot.parentElement.parentElement.querySelector("output.run");
  const say = point => { if (point) said.value = point.getAttribute("aria-label"); };
  points.forEach((point, place) => point.setAttribute("tabindex", place ? "-1" : "0"));
  plot.addEventListener("mouseover", event => say(event.target.closest("a")));
  plot.addEventListener("focusin", event => say(event.target.closest("a")));
  plot.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    const here = points.indexOf(event.target.closest("a"));
    if (!step || here < 0) return;
    event.preventDefault();
    points[here].setAttribute("tabindex", "-1");
    const next = points[(here + step + points.length) % points.length];
    next.setAttribute("tabindex", "0");
    next.focus();
  });
}

{
  const runs = JSON.parse(document.getElementById("run-data").textContent);
  const table = document.getElementById("run-table"), body = table.tBodies[0], more = document.getElementById("more");
  const filter = document.getElementById("run-filter"), count = document.getElementById("run-count");
  const keys = [...table.tHead.querySelectorAll("button")].map(button => button.dataset.key);
  for (const run of runs) run.text = keys.map(key => run[key] ?? "").join(" ").toLowerCase();
  let ordered = runs, matching = [], shown = 0;
  const add = () => {                                        // a page of thousands of runs draws a few hundred at a time
    const piece = document.createDocumentFragment();
    for (const run of matching.slice(shown, shown + CHUNK)) {
      const line = document.createElement("tr");
      for (const key of keys) {
        const cell = document.createElement("td"), value = run[key];
        const address = key === "row" ? run.href : key === "wandb" ? value : "";
        if (address) {
          const link = document.createElement("a");
          link.href = address; cell.append(link);
          if (key === "row") link.append(...value.split(/(?<=\/)/).flatMap(part => [part, document.createElement("wbr")]));
          else link.textContent = "W&B";
        } else {
          if (typeof value === "number") cell.className = "number";
          cell.textContent = value === null || value === "" ? "–" : (key === "best" || key === "last") ? value.toFixed(2) : value;
        }
        line.append(cell);
      }
      piece.append(line);
    }
    body.append(piece);
    shown = Math.min(shown + CHUNK, matching.length);
    more.hidden = shown >= matching.length;
    count.value = `${shown} shown, ${matching.length} match, ${runs.length} runs`;
  };
  const show = () => {
    const wanted = words(filter.value);
    matching = ordered.filter(run => has(run.text, wanted));
    shown = 0; body.replaceChildren(); add();
  };
  filter.addEventListener("input", show);
  more.addEventListener("click", add);
  for (const button of table.tHead.querySelectorAll("button"))
    button.addEventListener("click", () => { ordered = sorted(runs, run => run[button.dataset.key], turn(button)); show(); });
  show();
}
