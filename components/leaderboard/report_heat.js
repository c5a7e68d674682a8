// Tabs, filters and the heat map.

function setUpTabs() {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const choose = (tab) => {
    show({ view: tab.dataset.view }, { push: true });
    tab.focus();
  };
  for (const tab of tabs) {
    tab.addEventListener("click", () => choose(tab));
    tab.addEventListener("keydown", (event) => {
      const moves = { ArrowRight: 1, ArrowLeft: -1 };
      const place = tabs.indexOf(tab);
      if (event.key in moves) choose(tabs[(place + moves[event.key] + tabs.length) % tabs.length]);
      else if (event.key === "Home") choose(tabs[0]);
      else if (event.key === "End") choose(tabs.at(-1));
      else return;
      event.preventDefault();
    });
  }
  const update = () => {
    if (!tabs.some((tab) => tab.dataset.view === state.view)) state.view = DEFAULTS.view;
    for (const tab of tabs) {
      const selected = tab.dataset.view === state.view;
      tab.setAttribute("aria-selected", selected);
      tab.tabIndex = selected ? 0 : -1;
      byId(tab.getAttribute("aria-controls")).hidden = !selected;
    }
    byId("filters").hidden = !["heat", "gallery"].includes(state.view);
  };
  listeners.push(update);
  update();
}

function fill(select, entries) {
  select.replaceChildren(...entries.map(([value, text]) => element("option", { value }, text)));
}

function setUpFilters() {
  const names = ["task", "group", "policy", "outcome", "cause", "order"];
  const inputs = Object.fromEntries(names.map((name) => [name, byId(`filter-${name}`)]));
  fill(inputs.task, [["", "All tasks"], ...DATA.tasks.map(({ name }) => [name, words(name)])]);
  fill(inputs.group, [["", "All groups"], ...GROUPS.map((name) => [name, name.slice(6)])]);
  inputs.group.closest("label").hidden = GROUPS.length === 0;
  fill(inputs.policy, [[CHOSEN, "Chosen per task"], ["all", "All, side by side"], ...DATA.policies.map((name) => [name, name])]);
  fill(inputs.outcome, [["", "All outcomes"], ["not", "no success"], ...Object.entries(OUTCOMES), ["rerun", "started again"]]);
  fill(inputs.cause, [["", "All causes"], ...DATA.causes.map(({ id, name }) => [id, name])]);
  fill(inputs.order, [["instance", "by instance"], ["score", "by score"]]);
  for (const name of names) {
    inputs[name].addEventListener("change", () => show({ [name]: inputs[name].value, page: "1" }, { push: true }));
  }
  const text = byId("filter-text");
  text.addEventListener("input", () => show({ text: text.value, page: "1" }));
  byId("filter-clear").addEventListener("click", () => {
    const cleared = Object.fromEntries(["task", "group", "policy", "outcome", "cause", "text", "page"].map((name) => [name, DEFAULTS[name]]));
    show(cleared, { push: true });
  });
  const update = () => {
    for (const name of names) inputs[name].value = state[name];
    if (text.value !== state.text) text.value = state.text;
    byId("order-label").hidden = state.view !== "heat";
    const count = ROLLOUTS.filter((rollout) => matches(rollout)).length;
    byId("filter-count").textContent = `${count.toLocaleString("en")} of ${ROLLOUTS.length.toLocaleString("en")} rollouts`;
  };
  listeners.push(update);
  update();
}

const SHORT = (rollout) =>
  ({ success: "1", failure: "0", unfinished: "?" })[rollout.outcome] ?? rollout.q.toFixed(2).slice(1);

function cell(rollout) {
  if (!rollout) return element("td", { class: "absent", role: "gridcell" });
  const rerun = rollout.reruns.length > 0;
  const said = [words(rollout.task.name), `instance ${rollout.column}`, rollout.policy, OUTCOMES[rollout.outcome], score(rollout)];
  if (rerun) said.push(`started ${rollout.reruns.length + (rollout.steps === null ? 0 : 1)} times`);
  const name = [...new Set(said)].join(", ");
  const dim = !matches(rollout);
  const classes = `${rollout.outcome}${rerun ? " rerun" : ""}${dim ? " dim" : ""}`;
  return element("td", { class: classes, role: "gridcell", tabindex: -1, "data-key": rollout.key, "aria-label": name, title: name }, SHORT(rollout));
}

const ABSENT_LAST = (a, b) => (b?.q ?? -1) - (a?.q ?? -1) || (a?.steps ?? 1e9) - (b?.steps ?? 1e9);

// The columns of one policy's rollouts: all instances of any task, so that columns line up.
function columnsOf(rollouts) {
  const all = new Map(rollouts.map((rollout) => [rollout.column, [rollout.instance, rollout.number]]));
  return [...all].sort((a, b) => a[1][0] - b[1][0] || a[1][1] - b[1][1]).map(([column]) => column);
}

function blocks() {
  if (state.policy === "all") {
    // each task has one group, so the groups share their columns
    const others = DATA.policies.filter((name) => !GROUPS.includes(name));
    return [["groups", (r) => GROUPS.includes(r.policy)], ...others.map((name) => [name, (r) => r.policy === name])];
  }
  const name = state.policy === CHOSEN ? "" : state.policy;
  return [[name, policyMatches]];
}

function summaryCells(task) {
  const name = state.policy === CHOSEN || state.policy === "all" ? task.chosen : state.policy;
  const found = task.scores[name];
  const text = found ? `${found.q.toFixed(2)}` : "";
  const bar = found
    ? element("span", { class: "track", "aria-hidden": "true" },
        element("i", { style: `left:${100 * found.low}%;width:${100 * (found.high - found.low)}%` }),
        element("b", { style: `left:${100 * found.q}%` }))
    : "";
  const said = found ? `q ${text}, 95 % ${found.low.toFixed(2)} to ${found.high.toFixed(2)}` : "not run";
  return [
    element("td", { class: "mean num", role: "gridcell", title: said, "aria-label": said }, text),
    element("td", { class: "mini", role: "gridcell", title: said }, bar),
  ];
}

// Rows are lower where there are many tasks, and cells wider where there are few columns.
function drawHeat() {
  const table = byId("heat");
  const tasks = DATA.tasks.filter(taskMatches).sort((a, b) => a.duration - b.duration);
  const parts = blocks().map(([name, belongs]) => {
    const rollouts = ROLLOUTS.filter((rollout) => belongs(rollout) && taskMatches(rollout.task));
    const rows = new Map();
    for (const rollout of rollouts) {
      if (!rows.has(rollout.task.name)) rows.set(rollout.task.name, new Map());
      rows.get(rollout.task.name).set(rollout.column, rollout);
    }
    return { name, columns: columnsOf(rollouts), rows };
  }).filter((part) => part.columns.length);
  const sorted = state.order === "score";
  const heads = parts.flatMap(({ columns }, part) => columns.map((column, place) =>
    element("th", { scope: "col", role: "columnheader", class: part && !place ? "first" : null }, element("span", { class: "up" }, sorted ? `${place + 1}` : column))));
  const top = element("tr", { role: "row" }, element("th", { scope: "col", role: "columnheader" }, "Task"),
    element("th", { scope: "col", role: "columnheader", class: "wide" }, "Time"),
    element("th", { scope: "col", role: "columnheader" }, "q"), element("td", { role: "gridcell", class: "mini" }), heads);
  const names = parts.length > 1
    ? [element("tr", { role: "row" }, ["", "wide", "", "mini"].map((kind) => element("td", { role: "gridcell", class: kind || null })), parts.map(({ name, columns }, part) =>
        element("th", { colspan: columns.length, scope: "colgroup", role: "columnheader", class: part ? "policy first" : "policy" }, name)))]
    : [];
  const body = tasks.map((task) => {
    const cells = parts.flatMap(({ columns, rows }, part) => {
      const row = rows.get(task.name) || new Map();
      const found = columns.map((column) => row.get(column));
      if (sorted) found.sort(ABSENT_LAST);
      const made = found.map(cell);
      if (part && made.length) made[0].classList.add("first");
      return made;
    });
    const label = element("button", { type: "button", class: "link", onclick: () => show({ view: "gallery", task: task.name }, { push: true }) }, words(task.name));
    return element("tr", { role: "row" }, element("th", { scope: "row", role: "rowheader", title: task.instruction || task.name }, label),
      element("td", { class: "wide num", role: "gridcell" }, task.duration ? seconds(task.duration * DATA.hz) : ""), summaryCells(task), cells);
  });
  table.replaceChildren(element("thead", { role: "rowgroup" }, names, top), element("tbody", { role: "rowgroup" }, body));
  table.classList.toggle("dense", tasks.length > 40);
  table.classList.toggle("roomy", heads.length <= 16);
  const first = table.querySelector("td[data-key]");
  if (first) first.tabIndex = 0;
  byId("heat-empty").hidden = tasks.length > 0 && parts.length > 0;
}

function moveInHeat(event) {
  const here = event.target.closest("td[data-key]");
  if (!here) return;
  const moves = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  if (event.key === "Enter" || event.key === " ") {
    openRollout(here.dataset.key, inHeatOrder());
  } else if (event.key in moves) {
    const [x, y] = moves[event.key];
    const body = here.closest("tbody").rows;
    let row = here.parentElement.sectionRowIndex + y;
    let column = here.cellIndex + x;
    while (body[row]?.cells[column] && !body[row].cells[column].dataset.key) {
      row += y;
      column += x;
    }
    const there = body[row]?.cells[column];
    if (there) {
      here.tabIndex = -1;
      there.tabIndex = 0;
      there.focus();
    }
  } else return;
  event.preventDefault();
}

const inHeatOrder = () => [...byId("heat").querySelectorAll("td[data-key]:not(.dim)")].map((one) => one.dataset.key);

function setUpHeat() {
  const table = byId("heat");
  table.addEventListener("click", (event) => {
    const here = event.target.closest("td[data-key]");
    if (here) openRollout(here.dataset.key, inHeatOrder());
  });
  table.addEventListener("keydown", moveInHeat);
  let drawn = "";
  const update = () => {
    if (state.view !== "heat") return;
    const { rollout, page, first, second, pair, view, artifact, ...shown } = state;
    const wanted = JSON.stringify([shown, labelVersion()]);
    if (wanted !== drawn) drawHeat();
    drawn = wanted;
  };
  listeners.push(update);
  update();
}
