// Two players in step, for the report and for the comparison of two leaderboards.

const APART = 0.04; // seconds that the second player may be off before it is set right

// Two videos of the same real time: the first leads, and the other follows until it ends.
function playTogether(leader, follower, seek, button) {
  let frame = 0;
  const length = () => Math.max(leader.duration || 0, follower.duration || 0);
  const clock = () => (leader.ended ? follower : leader);
  const set = (time) => {
    for (const video of [leader, follower]) video.currentTime = Math.min(time, video.duration || time);
  };
  const tick = () => {
    const running = !leader.paused && !leader.ended;
    const off = Math.abs(leader.currentTime - follower.currentTime);
    if (running && !follower.ended && !follower.seeking && off > APART) follower.currentTime = leader.currentTime;
    seek.max = length();
    if (document.activeElement !== seek || running) seek.value = clock().currentTime;
    frame = requestAnimationFrame(tick);
  };
  const isPlaying = () => [leader, follower].some((video) => !video.paused && !video.ended);
  const label = () => { button.textContent = isPlaying() ? "Pause" : "Play both"; };
  for (const video of [leader, follower]) for (const name of ["play", "pause", "ended"]) video.addEventListener(name, label);
  const toggle = () => {
    if (isPlaying()) return [leader, follower].forEach((video) => video.pause());
    if (leader.ended && follower.ended) set(0);
    const ready = [leader, follower].map((video) => (video.ended ? null : video.play()));
    return Promise.allSettled(ready);
  };
  button.addEventListener("click", toggle);
  seek.addEventListener("input", () => set(Number(seek.value)));
  frame = requestAnimationFrame(tick);
  return () => {
    cancelAnimationFrame(frame);
    for (const video of [leader, follower]) {
      video.pause();
      video.removeAttribute("src");
      video.load();
    }
  };
}
