// The report is made on the server when it is asked for; plotly.js joins it here, and here it is saved.
const IDLE = "Save a report", LONGEST = 60000;
const button = h("button", { type: "button", class: "bv-button" }, IDLE);
const said = h("span", { class: "bv-sr", role: "status" });
let asked = 0, waits = null;
const over = (word, sentence) => {
  clearTimeout(waits);
  waits = null;
  button.removeAttribute("aria-disabled");
  setText(button, word);
  setText(said, sentence);
  setTimeout(() => waits || setText(button, IDLE), 2500);
};
button.addEventListener("click", () => {
  if (waits) return;
  asked += 1;
  waits = setTimeout(() => over("Not saved", "The report could not be made. Try again."), LONGEST);
  button.setAttribute("aria-disabled", "true");
  setText(button, "Making it…");
  setText(said, "");
  trigger("ask", { asked });
});
root.replaceChildren(button, said);
draw(async (v) => {
  if (!waits || v.asked !== asked) return;
  if (!v.name) return over("Not saved", "");
  try {
    saveFile(v.name, "text/html;charset=utf-8", v.before + (await plotlyJs()) + v.after);
    over("Saved", `Saved ${v.name}`);
  } catch {
    over("Not saved", "The report could not be made. Try again.");
  }
});
