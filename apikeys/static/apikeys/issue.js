// The answer to the first click shows the key. A second one, sent before it is there, would
// replace it by one that cannot.
"use strict";

document.getElementById("apikey_form").addEventListener("submit", (event) => {
    for (const button of event.target.querySelectorAll("input[type=submit]")) {
        button.disabled = true;
    }
});
