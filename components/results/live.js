// Brings the page of running evaluations up to date, without moving what somebody reads.

async function renew() {
  if (document.visibilityState === "visible") {
    const answer = await fetch(location.href);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const [main, now] = [document.querySelector("main"), page.querySelector("main")];
    if (answer.ok && now && main.innerHTML !== now.innerHTML) main.replaceWith(now);
  }
}

setInterval(() => renew().catch(() => {}), 5000);
