// The gallery: posters of what the filters leave, and the causes of failures. No player is made here.

const PER_PAGE = 20;
const TABS = { "": "All", not: "Failures", success: "Successes" };

function card(rollout, keys) {
  const labels = labelled(rollout);
  const said = rollout.outcome === "success" ? [] : labels.length ? labels.map(causeName) : rollout.guess ? [`first guess: ${causeName(rollout.guess[0])}`] : [];
  const picture = rollout.hasVideo
    ? element("img", { src: rollout.poster, alt: "", loading: "lazy", decoding: "async" })
    : element("span", { class: "nothing" }, rollout.steps === null ? "never finished" : "no video");
  const name = `${words(rollout.task.name)}, instance ${rollout.column}, ${rollout.policy}: ${score(rollout)}`;
  return element("li", {},
    element("button", { type: "button", class: "card", "aria-label": name, onclick: () => openRollout(rollout.key, keys) },
      element("span", { class: "picture" }, picture, element("span", { class: `pill ${rollout.outcome}` }, score(rollout))),
      element("span", { class: "title" }, words(rollout.task.name)),
      element("span", { class: "note" }, [`instance ${rollout.column}`, rollout.policy, rollout.steps === null ? null : seconds(rollout.steps), ...said, ...notesOf(rollout)].filter(Boolean).join(" · "))));
}

function drawGallery() {
  const found = ROLLOUTS.filter((rollout) => matches(rollout));
  found.sort((a, b) => b.hasVideo - a.hasVideo || b.isChosen - a.isChosen || a.taskIndex - b.taskIndex || a.instance - b.instance);
  const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
  const page = Math.min(Math.max(1, Number.parseInt(state.page, 10) || 1), pages);
  const shown = found.slice((page - 1) * PER_PAGE, page * PER_PAGE);
  const keys = found.map((rollout) => rollout.key);
  byId("cards").replaceChildren(...shown.map((rollout) => card(rollout, keys)));
  byId("gallery-empty").hidden = found.length > 0;
  for (const tab of byId("gallery-tabs").children) tab.setAttribute("aria-pressed", tab.dataset.outcome === state.outcome);
  byId("pager").hidden = pages === 1;
  byId("page-place").textContent = `Page ${page} of ${pages}`;
  byId("page-back").disabled = page <= 1;
  byId("page-on").disabled = page >= pages;
  const task = DATA.tasks.find(({ name }) => name === state.task);
  byId("instruction").textContent = task?.instruction || "";
  byId("instruction").hidden = !task?.instruction;
  drawCauses();
}

// How many of the failed rollouts have each cause; a bar filters the gallery.
function drawCauses() {
  const failed = ROLLOUTS.filter((r) => r.outcome !== "success" && matches(r, { cause: false }));
  const labels = failed.filter((rollout) => labelled(rollout).length);
  const counted = labels.length ? labels : failed;
  const counts = new Map();
  for (const rollout of counted) for (const cause of causeOf(rollout)) counts.set(cause, (counts.get(cause) || 0) + 1);
  const most = Math.max(1, ...counts.values());
  const rows = DATA.causes.filter(({ id }) => counts.has(id) || id === state.cause).sort((a, b) => (counts.get(b.id) || 0) - (counts.get(a.id) || 0));
  byId("causes").replaceChildren(...rows.map(({ id, name, text }) => {
    const count = counts.get(id) || 0;
    return element("li", {},
      element("button", { type: "button", class: "cause", title: text, "aria-pressed": state.cause === id,
        onclick: () => show({ cause: state.cause === id ? "" : id, page: "1" }, { push: true }) },
        element("span", { class: "name" }, name),
        element("span", { class: "track", "aria-hidden": "true" }, element("i", { style: `left:0;width:${(100 * count) / most}%` })),
        element("span", { class: "num" }, `${count} (${percent(count / Math.max(1, counted.length))})`)));
  }));
  const unexplained = counted.filter((rollout) => !causeOf(rollout).length).length;
  byId("causes-note").textContent = !failed.length
    ? "No failed rollout fits the filters."
    : labels.length
      ? `As labelled by people: ${labels.length} of ${failed.length} failed rollouts.`
      : `First guesses by rule, not by people${unexplained ? `; ${unexplained} of ${failed.length} failed rollouts have none` : ""}.`;
}

function setUpGallery() {
  byId("gallery-tabs").replaceChildren(...Object.entries(TABS).map(([outcome, text]) =>
    element("button", { type: "button", "data-outcome": outcome, onclick: () => show({ outcome, page: "1" }, { push: true }) }, text)));
  const turn = (by) => {
    show({ page: String((Number.parseInt(state.page, 10) || 1) + by) }, { push: true });
    byId("gallery-tabs").scrollIntoView({ block: "nearest" });
  };
  byId("page-back").addEventListener("click", () => turn(-1));
  byId("page-on").addEventListener("click", () => turn(1));
  const update = () => {
    if (state.view === "gallery") drawGallery();
  };
  listeners.push(update);
  update();
}
