// gr.Plot reports no clicks, so this listens on the figure itself, anew at every press: gradio may
// have drawn another figure since.
const onPress = (event) => {
  const figure = event.target.closest && event.target.closest("#heat .js-plotly-plot");
  if (!figure || !figure.on) return;
  figure.removeAllListeners("plotly_click");
  figure.on("plotly_click", (click) => {
    const block = click.points && click.points[0] && click.points[0].customdata;
    if (typeof block === "string") trigger("pick", { block });
  });
};
document.addEventListener("pointerdown", onPress, true);

// On a narrow screen the figure scrolls sideways, which a keyboard must be able to do as well.
requestAnimationFrame(() => {
  const frame = root.closest(".bv-panel").querySelector(".bv-scroll");
  for (const [name, value] of [["tabindex", "0"], ["role", "region"], ["aria-label", "Heat map"]]) frame.setAttribute(name, value);
});
