// The comparison's two players.

const [left, right] = document.querySelectorAll(".pair video");
if (left && right) playTogether(left, right, document.getElementById("pair-seek"), document.getElementById("pair-play"));
