(names) => {
  // What is not kept is undefined, which leaves a field alone. A link's prompt comes first.
  let kept = {};
  try {
    kept = JSON.parse(sessionStorage.getItem("blockviz-fields")) || {};
  } catch {}
  const prompt = new URLSearchParams(location.search).get("prompt");
  if (prompt) kept.prompt = prompt.slice(0, 2000);
  return names.map((name) => kept[name] ?? undefined);
}
