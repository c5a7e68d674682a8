// Matrices, drawn as one pixel per entry, and the panel of an artifact.

function unpack(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// Entries are bytes: 0 is -limit, 255 is +limit.
function drawMatrix(figure) {
  const canvas = figure.querySelector("canvas");
  const { width, height, values } = DATA.matrices[Number(figure.dataset.matrix)];
  const bytes = unpack(values);
  canvas.width = width;
  canvas.style.imageRendering = width < 64 ? "pixelated" : "auto";
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  bytes.forEach((byte, place) => {
    const value = (byte - 127.5) / 127.5;
    const strength = Math.min(1, Math.abs(value));
    const colour = value < 0 ? [178, 72, 40] : [11, 107, 93];
    for (let channel = 0; channel < 3; channel += 1) image.data[4 * place + channel] = 255 + (colour[channel] - 255) * strength;
    image.data[4 * place + 3] = 255;
  });
  context.putImageData(image, 0, 0);
}

function setUpFigures() {
  let drawn = false;
  const update = () => {
    if (drawn || state.view !== "training") return;
    drawn = true;
    for (const figure of document.querySelectorAll("[data-matrix]")) drawMatrix(figure);
  };
  listeners.push(update);
  update();
}

// A node of the lineage opens its artifact's entry; so does the address.
function setUpArtifacts() {
  for (const link of document.querySelectorAll("[data-artifact]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      show({ view: "origin", artifact: link.dataset.artifact }, { push: true });
    });
  }
  const update = (_, before) => {
    const entry = document.getElementById(state.artifact);
    if (state.view !== "origin" || !entry || before?.artifact === state.artifact) return;
    entry.open = true;
    entry.scrollIntoView({ block: "center" });
    entry.querySelector("summary").focus({ preventScroll: true });
  };
  listeners.push(update);
  update();
}

setUpTabs();
setUpFilters();
setUpHeat();
setUpGallery();
setUpPairs();
setUpRollout();
setUpFigures();
setUpArtifacts();
loadLabels().catch(() => {}); // the page was left, or the service has gone: it shows what it was built with
