// Pairs: one instance under two policies, side by side, playing together.

let stopPair = () => {};

function pairsOf(task, first, second) {
  const find = (policy) => new Map(ROLLOUTS.filter((r) => r.task.name === task && r.policy === policy).map((r) => [r.column, r]));
  const others = find(second);
  return [...find(first)].filter(([column]) => others.has(column)).map(([column, rollout]) => [column, rollout, others.get(column)]);
}

function side(rollout) {
  const video = rollout.hasVideo ? player(rollout) : null;
  if (video) video.controls = false;
  return [video, element("figure", {}, video ?? element("p", { class: "nothing" }, "no video"),
    element("figcaption", {}, element("span", { class: `pill ${rollout.outcome}` }, score(rollout)), ` ${rollout.policy}`, rollout.steps === null ? "" : `, ${seconds(rollout.steps)}`))];
}

function drawPair(task, column, first, second) {
  const [one, left] = side(first);
  const [two, right] = side(second);
  const stage = element("div", { class: "pair" }, left, right);
  byId("pair").replaceChildren(element("p", { class: "instruction" }, DATA.tasks.find(({ name }) => name === task).instruction || words(task)), stage);
  if (!one || !two) {
    byId("pair").append(element("p", { class: "note" }, "Both rollouts need a video to play side by side."));
    return;
  }
  const button = element("button", { type: "button", class: "primary", id: "pair-play" }, "Play both");
  const seek = element("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0, "aria-label": "Time of both videos" });
  const speeds = speedButtons((speed) => { for (const video of [one, two]) video.playbackRate = speed; });
  byId("pair").append(element("div", { class: "controls" }, button, seek, speeds));
  stopPair = playTogether(one, two, seek, button);
}

function drawPairs() {
  stopPair();
  stopPair = () => {};
  const policies = DATA.policies;
  const task = DATA.tasks.find(({ name }) => name === state.task) || DATA.tasks[0];
  const having = policies.filter((name) => ROLLOUTS.some((r) => r.taskIndex === DATA.tasks.indexOf(task) && r.policy === name));
  const second = having.includes(state.second) ? state.second : task.chosen;
  const first = having.includes(state.first) ? state.first : having.findLast((name) => name !== second) || second;
  fill(byId("pair-task"), DATA.tasks.map(({ name }) => [name, words(name)]));
  fill(byId("pair-first"), having.map((name) => [name, name]));
  fill(byId("pair-second"), having.map((name) => [name, name]));
  byId("pair-task").value = task.name;
  byId("pair-first").value = first;
  byId("pair-second").value = second;
  const found = pairsOf(task.name, first, second);
  // the pairs that tell most come first: the second does better, and both can be watched
  const playable = ([, a, b]) => a.hasVideo && b.hasVideo;
  const best = [...found].sort((a, b) => playable(b) - playable(a) || b[2].q - b[1].q - (a[2].q - a[1].q))[0];
  const chosen = found.find(([column]) => column === state.pair) || best;
  byId("pair-list").replaceChildren(...found.map(([column, a, b]) => {
    const change = b.q > a.q ? "better" : b.q < a.q ? "worse" : "same";
    const said = `instance ${column}: ${score(a)} to ${score(b)}, ${change}${playable([0, a, b]) ? "" : ", no video of both"}`;
    const classes = `chip ${change}${playable([0, a, b]) ? "" : " dim"}`;
    return element("button", { type: "button", class: classes, "aria-pressed": column === chosen?.[0], "aria-label": said, title: said,
      onclick: () => show({ task: task.name, first, second, pair: column }, { push: true }) }, column);
  }));
  const better = found.filter(([, a, b]) => b.q > a.q).length;
  const worse = found.filter(([, a, b]) => b.q < a.q).length;
  byId("pair-note").textContent = found.length ? `${second} is better on ${better} of ${found.length} instances than ${first}, and worse on ${worse}.` : "No instance was run with both policies.";
  if (chosen) drawPair(task.name, ...chosen);
  else byId("pair").replaceChildren();
}

function setUpPairs() {
  const change = (name) => (event) => show({ first: byId("pair-first").value, second: byId("pair-second").value, task: byId("pair-task").value, [name]: event.target.value, pair: "" }, { push: true });
  byId("pair-task").addEventListener("change", change("task"));
  byId("pair-first").addEventListener("change", change("first"));
  byId("pair-second").addEventListener("change", change("second"));
  let drawn = "";
  const update = () => {
    // an open dialog has a player of its own
    const wanted = state.view === "pairs" && !state.rollout ? JSON.stringify([state.task, state.first, state.second, state.pair]) : "";
    if (wanted === drawn) return;
    drawn = wanted;
    if (wanted) drawPairs();
    else {
      stopPair();
      stopPair = () => {};
      byId("pair").replaceChildren();
    }
  };
  listeners.push(update);
  update();
}
