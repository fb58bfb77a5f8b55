(names, values) => {
  try {
    sessionStorage.setItem("blockviz-fields", JSON.stringify(Object.fromEntries(names.map((name, i) => [name, values[i]]))));
  } catch {}
  return [];
}
