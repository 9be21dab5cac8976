from __future__ import annotations

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db.models import ForeignKey, QuerySet
from django.forms import Field, ModelForm
from django.http import HttpRequest
from django.utils import timezone

from sandboxes.models import ApiToken


@admin.register(ApiToken)
class ApiTokenAdmin(admin.ModelAdmin):
    list_display = ("label", "prefix", "owner", "created_at", "revoked_at")
    list_filter = (("revoked_at", admin.EmptyFieldListFilter), "created_at")
    list_select_related = ("owner",)
    date_hierarchy = "created_at"
    search_fields = ("label", "prefix", "owner__username")
    fields = ("owner", "label", "prefix", "created_at", "revoked_at")
    readonly_fields = ("prefix", "created_at", "revoked_at")
    actions = ("revoke_selected",)

    def has_change_permission(self, request: HttpRequest, obj: object = None) -> bool:
        # Revoking is an action of its own; nothing else of a token ever changes.
        return obj is None and super().has_change_permission(request, obj)

    def formfield_for_foreignkey(
        self, db_field: ForeignKey, request: HttpRequest, **kwargs: object
    ) -> Field | None:
        if db_field.name == "owner":
            kwargs["initial"] = request.user.pk
            if not request.user.is_superuser:
                # A token acts for its owner: nobody may lend themselves somebody else's rights.
                kwargs["queryset"] = get_user_model().objects.filter(pk=request.user.pk)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def save_model(
        self, request: HttpRequest, obj: ApiToken, form: ModelForm, change: bool
    ) -> None:
        token, secret = ApiToken.issue(obj.owner, obj.label)
        obj.pk = token.pk
        self.message_user(
            request, f"The token is {secret}. It is shown this once.", messages.WARNING
        )

    @admin.action(permissions=["change"], description="Revoke selected tokens")
    def revoke_selected(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> None:
        revoked = queryset.filter(revoked_at=None).update(revoked_at=timezone.now())
        self.message_user(request, f"Revoked {revoked}.", messages.SUCCESS)
