// #all is a table whose heads sort it; its rows lie in a template, where thousands cost nothing: only those shown are
// laid out. Heads of class "text" have texts below them, others numbers: of a cell its data-value, or what it says.
const STEP = 100;
const search = document.getElementById("search");
const more = document.getElementById("more");
const heads = [...document.querySelectorAll("#all thead th")];
const rows = [...document.querySelector("template").content.querySelectorAll("tr")];
const names = new Map(rows.map((row) => [row, row.cells[0].textContent.toLowerCase()]));
let most = STEP;

function isText(column) {
  return heads[column].classList.contains("text");
}

function show() {
  const query = search.value.trim().toLowerCase();
  const found = rows.filter((row) => names.get(row).includes(query));
  document.querySelector("#all tbody").replaceChildren(...found.slice(0, most));
  document.getElementById("count").textContent = Math.min(found.length, most) + " of " + found.length + " shown";
  more.hidden = found.length <= most;
}

function value(row, column) {
  const cell = row.cells[column];
  return isText(column) ? cell.textContent.toLowerCase() : Number(cell.dataset.value ?? cell.textContent.replaceAll(",", ""));
}

function sort(column) {
  const down = heads[column].ariaSort ? heads[column].ariaSort !== "descending" : !isText(column);
  const keys = new Map(rows.map((row) => [row, value(row, column)]));
  rows.sort((a, b) => {
    const [x, y] = down ? [keys.get(b), keys.get(a)] : [keys.get(a), keys.get(b)];
    return x < y ? -1 : x > y ? 1 : 0;
  });
  for (const head of heads) head.ariaSort = null;
  heads[column].ariaSort = down ? "descending" : "ascending";
  show();
}

heads.forEach((head, column) => head.firstElementChild.addEventListener("click", () => sort(column)));
search.addEventListener("input", show);
more.addEventListener("click", () => {
  most += STEP;
  show();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && event.target !== search) {
    event.preventDefault();
    search.focus();
  }
});
show();
