"""A Django project in one module, as ASGI and as WSGI."""

import django
from django import forms
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.exceptions import PermissionDenied
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.urls import path

__all__ = ["asgi", "wsgi"]

settings.configure(
    SECRET_KEY="a secret for tests only",
    ALLOWED_HOSTS=["a.test"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    USE_TZ=True,
    LOGGING_CONFIG=None,
)
django.setup()


class ItemForm(forms.Form):
    name = forms.CharField(max_length=5)
    price = forms.DecimalField(min_value=1)


def item(request: HttpRequest, number: int) -> HttpResponse:
    return JsonResponse({"number": number, "q": request.GET.get("q"), "client": request.META["REMOTE_ADDR"]})


def create(request: HttpRequest) -> HttpResponse:
    form = ItemForm(request.POST)
    if not form.is_valid():
        return JsonResponse(form.errors.get_json_data(), status=422)
    return JsonResponse({"name": form.cleaned_data["name"]}, status=201)


def token(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{len(get_token(request))}", content_type="text/plain; charset=utf-8")


async def asynchronous(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"async": True, "body": request.body.decode()})


def session(request: HttpRequest) -> HttpResponse:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(str(request.session["visits"]))


def parts(request: HttpRequest) -> HttpResponse:
    return StreamingHttpResponse((f"part {number}\n" for number in range(5)), content_type="text/plain; charset=utf-8")


def refused(request: HttpRequest) -> HttpResponse:
    raise PermissionDenied


def broken(request: HttpRequest) -> HttpResponse:
    raise KeyError("broken")


def away(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect("/items/1/")


urlpatterns = [
    path("items/<int:number>/", item),
    path("items/", create),
    path("token/", token),
    path("async/", asynchronous),
    path("session/", session),
    path("parts/", parts),
    path("refused/", refused),
    path("broken/", broken),
    path("away/", away),
]

asgi = get_asgi_application()
wsgi = get_wsgi_application()
