// gr.Plot reports no clicks, so this listens on the figure itself, anew at every press: gradio may
// have drawn another figure since. A point's own data is the set that was removed there.
const onPress = (event) => {
  const figure = event.target.closest && event.target.closest("#curves-plot .js-plotly-plot");
  if (!figure || !figure.on) return;
  figure.removeAllListeners("plotly_click");
  figure.on("plotly_click", (click) => {
    const point = click.points && click.points[0];
    const removed = point && point.customdata;
    if (typeof removed === "string") trigger("pick", { removed: removed ? removed.split(",") : [] });
  });
};
document.addEventListener("pointerdown", onPress, true);
