from django.core.exceptions import ValidationError

from throttling.rates import InvalidRateLimit, RateLimit


def validate_rate_limit(notation: str) -> None:
    """A model or form field's validator for the notation of rate limits."""
    try:
        RateLimit.parse(notation)
    except InvalidRateLimit as error:
        raise ValidationError(str(error), code="invalid_rate_limit") from error
