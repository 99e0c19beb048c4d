"""`make open`: opens MLflow's page in the browser. The address never contains the password."""

from __future__ import annotations

import webbrowser

from operations.stack import CloudStack, Stack


def open_page(stack: Stack) -> None:
    address, username = stack.outputs["tracking_uri"], stack.outputs["tracking_username"]
    if isinstance(stack, CloudStack) and stack.setting("access") == "iam":
        print(
            "With access iam, a browser needs gcloud's proxy. Keep this command running, and open "
            "http://localhost:8080:\n"
            f"  gcloud run services proxy {stack.service} --port 8080 --region {stack.region} "
            f"--project {stack.project}"
        )
    elif _opened(address):
        print(f"{address} is open in the browser.")
    else:
        print(f"No browser was found on this machine. The address: {address}")
    where = stack.name if isinstance(stack, CloudStack) else "local"
    print(f"Log in as {username}; `make env STACK={where}` shows the password.")


def _opened(address: str) -> bool:
    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False
