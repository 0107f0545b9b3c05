"""The old shop: an ordinary Flask application that knows nothing about a gateway.

`flask --app shop run --port 1980` runs it as always. shop_gate.py does its checks at the gateway.
"""

from flask import Flask, Response, abort, redirect, request, session
from werkzeug.wrappers import Response as AnyResponse

OFFICE = ("192.0.2.", "127.0.0.1")

app = Flask(__name__)
app.secret_key = "change me: with it anyone can sign a session"


@app.before_request
def only_the_office_may_administer() -> None:
    if request.path.startswith("/admin/") and not (request.remote_addr or "").startswith(OFFICE):
        abort(403)


@app.before_request
def sign_in_first() -> AnyResponse | None:
    if "user" not in session and request.endpoint not in (None, "login"):
        return redirect(f"/login?next={request.path}")
    return None


@app.after_request
def no_frames(response: Response) -> Response:
    response.headers["X-Frame-Options"] = "DENY"
    return response


@app.route("/login", methods=["GET", "POST"])
def login() -> str | AnyResponse:
    if request.method == "GET":
        return '<form method="post"><input name="user"><input name="password" type="password"><button>Sign in</button>'
    if request.form.get("password") != "swordfish":
        abort(401)
    session["user"] = request.form["user"]
    return redirect("/cart")


@app.route("/cart", methods=["GET", "POST"])
def cart() -> str:
    return f"The cart of {session['user']}: {request.get_data(as_text=True) or 'empty'}"


@app.route("/admin/stock/<int:article>")
def stock(article: int) -> str:
    return f"Of article {article} there are 3."
