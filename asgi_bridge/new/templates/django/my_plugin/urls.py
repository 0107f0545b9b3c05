"""The views: one answers here, the other lets the request go on."""

from asgi_bridge.django import pass_on
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path, re_path

from .conf import Conf


def hello(request: HttpRequest) -> HttpResponse:
    conf: Conf = request.scope["conf"]
    return JsonResponse({"greeting": conf.greeting})


async def others(request: HttpRequest) -> HttpResponse:
    conf: Conf = request.scope["conf"]
    return await pass_on(request, headers={"x-greeting": conf.greeting})


urlpatterns = [path("hello", hello), re_path("", others)]
