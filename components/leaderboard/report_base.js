// Data, address bar and elements. The files report_*.js are put into the page as one script, in the order of
// their names in report.py; nothing is loaded from elsewhere, so that the page works from a file.

const DATA = JSON.parse(document.getElementById("data").textContent);
const CHOSEN = "chosen";
const OUTCOMES = {
  success: "success",
  partial: "partial success",
  failure: "nothing reached",
  unfinished: "never finished",
};
const ROLLOUTS = DATA.rollouts.task.map((task, index) => {
  const column = (name) => DATA.rollouts[name][index];
  const rollout = {
    index,
    task: DATA.tasks[task],
    taskIndex: task,
    policy: DATA.policies[column("policy")],
    instance: column("instance"),
    number: column("number"),
    q: column("q"),
    steps: column("steps"),
    speed: column("speed"),
    guess: DATA.guesses[index] || null,
    reruns: DATA.reruns[index] || [],
    distance: column("distance"),
    hasVideo: column("video") === 1,
    hasTrace: column("trace") === 1,
  };
  rollout.outcome =
    rollout.steps === null ? "unfinished" : rollout.q === 1 ? "success" : rollout.q > 0 ? "partial" : "failure";
  rollout.column = rollout.number ? `${rollout.instance}.${rollout.number}` : `${rollout.instance}`;
  rollout.key = [rollout.policy, rollout.task.name, rollout.instance, rollout.number].join("/");
  rollout.isChosen = rollout.task.chosen === rollout.policy;
  const file = `${rollout.task.name}_${rollout.instance}_${rollout.number}`;
  const place = ["videos", rollout.policy.replaceAll(":", "-"), "reported", file].map(encodeURIComponent).join("/");
  rollout.video = `${place}.mp4`;
  rollout.poster = `${place}.jpg`;
  return rollout;
});
const BY_KEY = new Map(ROLLOUTS.map((rollout) => [rollout.key, rollout]));
const GROUPS = DATA.policies.filter((name) => name.startsWith("group:"));
const IN_GROUP = new Set(ROLLOUTS.map((rollout) => `${rollout.policy} ${rollout.task.name}`));

// Makes an element. Attributes that start with "on" are listeners; children are elements or text, never HTML.
function element(name, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "rect", "circle", "g", "text", "title"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key.startsWith("aria-")) made.setAttribute(key, value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null));
  return made;
}

const byId = (id) => document.getElementById(id);
const percent = (share) => `${Math.round(100 * share)} %`;
const seconds = (steps) => {
  const whole = Math.round(steps / DATA.hz);
  return whole < 60 ? `${(steps / DATA.hz).toFixed(1)} s` : `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
};
const score = (rollout) => (rollout.outcome === "success" ? "success" : rollout.outcome === "unfinished" ? "unfinished" : `q ${rollout.q.toFixed(2)}`);
const words = (name) => name.replaceAll("_", " ");

// What the page shows is what its address says: #view=gallery&task=..., so that a view can be sent to someone.
const DEFAULTS = {
  view: "overview", task: "", policy: CHOSEN, group: "", outcome: "", cause: "", text: "", order: "instance",
  page: "1", rollout: "", first: "", second: "", pair: "", artifact: "",
};
let state = readAddress();
const listeners = [];

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const read = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) if (given.has(name)) read[name] = given.get(name);
  return read;
}

function addressOf(wanted) {
  const changed = Object.entries(wanted).filter(([name, value]) => value !== DEFAULTS[name]);
  return `#${new URLSearchParams(changed)}`;
}

// Changes what is shown. A step that the back button should undo is pushed; typing replaces.
function show(changes, { push = false } = {}) {
  const before = state;
  state = { ...state, ...changes };
  try {
    history[push ? "pushState" : "replaceState"](null, "", addressOf(state));
  } catch {
    // a page without an address of its own, as inside of another one
  }
  for (const listener of listeners) listener(state, before);
}

window.addEventListener("popstate", () => {
  const before = state;
  state = readAddress();
  for (const listener of listeners) listener(state, before);
});

function causeOf(rollout) {
  const given = labelled(rollout);
  if (given.length) return given;
  return rollout.guess ? [rollout.guess[0]] : [];
}

function taskMatches(task) {
  if (state.task && task.name !== state.task) return false;
  return !state.group || IN_GROUP.has(`${state.group} ${task.name}`);
}

function policyMatches(rollout) {
  if (state.policy === "all") return true;
  return state.policy === CHOSEN ? rollout.isChosen : rollout.policy === state.policy;
}

function outcomeMatches(rollout) {
  if (!state.outcome) return true;
  if (state.outcome === "rerun") return rollout.reruns.length > 0;
  if (state.outcome === "not") return rollout.outcome !== "success";
  return rollout.outcome === state.outcome;
}

function textMatches(rollout) {
  const parts = state.text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!parts.length) return true;
  const { task, policy, instance, outcome } = rollout;
  const said = [task.name, words(task.name), task.instruction, policy, instance, OUTCOMES[outcome]];
  const note = rollout.guess ? rollout.guess[1] : "";
  const all = [...said, ...rollout.reruns, note, ...notesOf(rollout)].join(" ").toLowerCase();
  return parts.every((part) => all.includes(part));
}

function matches(rollout, { cause = true } = {}) {
  const fits = taskMatches(rollout.task) && policyMatches(rollout) && outcomeMatches(rollout) && textMatches(rollout);
  if (!fits || !cause || !state.cause) return fits;
  return rollout.outcome !== "success" && causeOf(rollout).includes(state.cause);
}
