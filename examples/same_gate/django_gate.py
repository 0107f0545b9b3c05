"""The gate in Django: one view for all paths. An async view would `return await pass_on(...)`."""

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import re_path
from keys import DETAIL, user_of

from asgi_bridge import Bridge
from asgi_bridge.django import pass_on

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="unused: there is no session")


def gate(request: HttpRequest) -> HttpResponse:
    user = user_of(request.headers.get("x-api-key"))
    if user is None:
        problem = {"title": "Unauthorized", "status": 401, "detail": DETAIL}
        kind = "application/problem+json"
        return JsonResponse(problem, status=401, headers={"www-authenticate": "ApiKey"}, content_type=kind)
    return pass_on(request, headers={"x-user": user, "x-api-key": None})


urlpatterns = [re_path("", gate)]
bridge = Bridge()
bridge.mount("gate", get_asgi_application())
