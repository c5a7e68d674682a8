// Labels of failures: causes and a note, per rollout and person. A page that is opened from a file shows those
// that it was built with; one that `b1k results serve` shows can also change them.

const LABELS = new Map(Object.entries(DATA.labels));
let version = 0;
const labelVersion = () => version;
let identity = ""; // given by a login, and then not to be changed here
let mayLabel = false;
const SERVICE = document.querySelector('meta[name="b1k-labels"]')?.content || "";

const causeName = (id) => DATA.causes.find((cause) => cause.id === id)?.name || id;
const entriesOf = (rollout) => Object.entries(LABELS.get(rollout.key) || {});
const labelled = (rollout) => [...new Set(entriesOf(rollout).flatMap(([, { causes }]) => causes))];
const notesOf = (rollout) => entriesOf(rollout).map(([, { note }]) => note);

// Empty where there is nothing to say; drawn again when labels have changed.
function labelPanel(rollout) {
  return element("div", { class: "labels" }, rollout.outcome === "success" ? null : labelContent(rollout));
}

function redrawLabels() {
  const rollout = BY_KEY.get(state.rollout);
  const panel = document.querySelector("#rollout .labels");
  if (rollout && panel) panel.replaceWith(labelPanel(rollout));
  version += 1;
  show({});
}

function labelContent(rollout) {
  const given = entriesOf(rollout).map(([who, { causes, note }]) => element("li", {}, element("b", {}, causes.map(causeName).join(", ") || "no cause"), note ? `: ${note}` : "", element("span", { class: "note" }, ` (${who})`)));
  const list = given.length ? element("ul", {}, given) : null;
  if (!mayLabel) return list && [element("h3", {}, "Labels"), list];
  return [element("h3", {}, "Why did it fail?"), list, editor(rollout)];
}

const KEYS = "123456789abcd";

function editor(rollout) {
  const who = identity || localStorage.getItem("b1k-who") || "";
  const mine = LABELS.get(rollout.key)?.[who] || { causes: [], note: "" };
  const boxes = DATA.causes.map(({ id, name, text }, place) => element("label", { title: text },
    element("input", { type: "checkbox", name: "cause", value: id, checked: mine.causes.includes(id) }), element("kbd", {}, KEYS[place]), ` ${name}`));
  const person = element("input", { id: "label-who", value: who, required: true, maxlength: 80, readonly: Boolean(identity) });
  const note = element("textarea", { id: "label-note", rows: 2, maxlength: 2000 });
  note.value = mine.note;
  const said = element("p", { class: "note", role: "status", id: "label-status" });
  const form = element("form", { id: "label-form", onsubmit: (event) => {
    event.preventDefault();
    saveLabel(rollout, form, person.value.trim(), note.value.trim(), said);
  } }, element("fieldset", {}, element("legend", { class: "note" }, "Causes, several where needed"), boxes),
    element("label", { class: "field" }, "Note", note), element("label", { class: "field" }, "Your name", person),
    element("button", { type: "submit", class: "primary" }, "Save (s), next (j)"), said);
  return form;
}

async function saveLabel(rollout, form, who, note, said) {
  const causes = [...form.querySelectorAll("input[name=cause]:checked")].map((box) => box.value);
  if (!who) {
    said.textContent = "Give your name first.";
    form.querySelector("#label-who").focus();
    return;
  }
  localStorage.setItem("b1k-who", who);
  said.textContent = "Saving";
  try {
    const answer = await fetch(SERVICE, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ rollout: rollout.key, causes, note, who }) });
    if (!answer.ok) throw new Error(await answer.text());
    const saved = await answer.json();
    LABELS.set(rollout.key, { ...(LABELS.get(rollout.key) || {}), [saved.who]: saved });
    const focused = form.contains(document.activeElement);
    redrawLabels();
    byId("label-status").textContent = "Saved";
    if (focused) byId("rollout-on").focus();
  } catch (error) {
    said.textContent = `Not saved: ${error.message}`;
  }
}

// The labels of now, and who is asking, where a service has them.
async function loadLabels() {
  if (!SERVICE) return;
  const answer = await fetch(SERVICE);
  if (!answer.ok) return;
  const { labels, who, writable } = await answer.json();
  LABELS.clear();
  for (const [rollout, people] of Object.entries(labels)) LABELS.set(rollout, people);
  identity = who;
  mayLabel = writable;
  redrawLabels();
}

// In the dialog 1 to 9 and a to d choose causes, s saves.
function labelKey(key) {
  const form = document.getElementById("label-form");
  if (!form) return null;
  const box = form.querySelectorAll("input[name=cause]")[KEYS.indexOf(key)];
  if (KEYS.includes(key) && box) return () => box.click();
  return key === "s" ? () => form.requestSubmit() : null;
}
