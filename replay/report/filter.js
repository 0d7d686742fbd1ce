"use strict";
// Hides rows of the events that do not have the text. Nothing is computed here.
const field = document.getElementById("filter");
const rows = document.querySelectorAll("#events tbody tr");
field.addEventListener("input", () => {
  const wanted = field.value.toLowerCase();
  for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
});
