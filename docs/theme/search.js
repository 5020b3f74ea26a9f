// Search in INDEX (search-index.js): every word of the query must begin a word of the entry; titles count most.
const box = document.getElementById("search");
const found = document.getElementById("found");

function score(entry, words) {
  const title = entry.title.toLowerCase();
  const text = entry.text.toLowerCase();
  let sum = 0;
  for (const word of words) {
    const start = new RegExp("(^|[^a-z0-9])" + word.replace(/[^\w]/g, "\\$&"));
    if (start.test(title)) sum += 10 - Math.min(5, title.length / 20);
    else if (start.test(text)) sum += 1;
    else return 0;
  }
  return sum;
}

function show() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  found.replaceChildren();
  if (!words.length) return;
  const best = INDEX.map((entry) => [score(entry, words), entry]).filter(([points]) => points > 0);
  best.sort((a, b) => b[0] - a[0]);
  for (const [, entry] of best.slice(0, 12)) {
    const link = document.createElement("a");
    link.href = UP + entry.href;
    link.textContent = entry.title;
    const where = document.createElement("small");
    where.textContent = entry.where;
    const item = document.createElement("li");
    item.append(link, where);
    found.append(item);
  }
  if (!best.length) found.textContent = "nothing found";
}

box.addEventListener("input", show);
box.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { box.value = ""; show(); }
  if (event.key === "Enter" && found.querySelector("a")) found.querySelector("a").click();
});
const asked = new URLSearchParams(location.search).get("q");
if (asked) { box.value = asked; show(); }
