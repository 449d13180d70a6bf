"""Faster ways through the loop of EM: what to try next, once an E-step has judged the last try."""

from jaxem.acceleration.judged import Judged as Judged
from jaxem.acceleration.strategy import (
    STRATEGIES as STRATEGIES,
    Strategy as Strategy,
    check_accelerate as check_accelerate,
)
