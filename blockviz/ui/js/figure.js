// The figure itself is a gr.Plot below; its files are made here, in the page, when asked for.
const title = h("h2"), reading = h("p", { class: "bv-lead" });
const said = h("span", { class: "bv-note", role: "status", "aria-live": "polite" });
const NARROWEST = 900;

const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

// Drawn anew off the page: on the ground and in the ink of the theme, never narrower than a page.
const image = (format) => {
  const drawn = document.querySelector(`#${CSS.escape(props.value.plot)} .js-plotly-plot`);
  if (!drawn || !window.Plotly) throw new Error("not drawn");
  const style = getComputedStyle(root);
  const colour = (name) => style.getPropertyValue(name).trim();
  const layout = { ...drawn.layout, paper_bgcolor: colour("--bv-panel"), font: { ...drawn.layout.font, color: colour("--bv-ink") } };
  const size = { width: Math.max(NARROWEST, drawn.clientWidth), height: props.value.height, scale: format === "png" ? 2 : 1 };
  return window.Plotly.toImage({ data: drawn.data, layout }, { format, ...size, imageDataOnly: true });
};
const page = async () => props.value.before + (await plotlyJs()) + props.value.after;
const FILES = [
  ["PNG", "png", async (name) => saveFile(name, "image/png", bytes(await image("png")))],
  ["SVG", "svg", async (name) => saveFile(name, "image/svg+xml", await image("svg"))],
  ["HTML", "html", async (name) => saveFile(name, "text/html;charset=utf-8", await page())],
  ["CSV", "csv", async (name) => saveFile(name, "text/csv;charset=utf-8", props.value.csv)],
];
const buttons = FILES.map(([word, ending, make]) => {
  const button = h("button", { type: "button", class: "bv-button" }, word);
  button.addEventListener("click", async () => {
    const name = `${props.value.key}.${ending}`;
    button.disabled = true;
    setText(said, "");
    try {
      await make(name);
      setText(said, `Saved ${name}`);
    } catch {
      setText(said, `${word} could not be made. The figure may not be drawn yet. Try again once you see it.`);
    }
    button.disabled = false;
    button.focus();
  });
  return button;
});
const files = h("div", { class: "bv-files", role: "group" }, ...buttons);
root.replaceChildren(h("div", { class: "bv-figurehead" }, h("div", null, title, reading), files), said);
draw((v) => {
  root.hidden = !v.title;
  // A figure wider than the screen scrolls in its own box: that must work without a mouse too.
  const box = document.querySelector(`#${CSS.escape(v.plot || "none")}`)?.closest(".bv-scroll");
  if (box) Object.assign(box, { tabIndex: 0, role: "region", ariaLabel: v.title });
  setText(title, v.title);
  setText(reading, v.reading);
  setText(said, "");
  files.setAttribute("aria-label", `Save the figure: ${v.title}`);
  buttons.forEach((button, i) => button.setAttribute("aria-label", `${FILES[i][0]} of ${v.title}`));
});
