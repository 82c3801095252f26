"""Regular expressions of `RuleCompiler`: the wordings with which prompts ask for, keep and forbid something."""

from __future__ import annotations

import re

# Private-use characters: before a forbidden phrase, around the number of a masked phrase, before what is replaced.
NEGATED, MASK, CONTRAST = "\ue000", "\ue001", "\ue002"

DETERMINERS = r"(?:the|its|his|her|their|that|those|this|these|any|all|every)"
RELATION = r"(?=\s+(?:in|for|as|at|with|by|but)\s)"
THIS = rf"(?:(?:this|it|that|the same)(?: one)?|(?:one|something)(?:{RELATION}|$))"
SAME = r"(?:the |exactly (?:the )?)?same(?: one| thing)?|exactly (?:like )?this(?: one)?"
SHARED = r"(?:colou?r|shape|size|style|pattern|material|length|background|pose|shade|design|cut)"
HAVING = r"(?:(?:(?:it|that|which|who|they|there|(?:the |this )?(?:photo|picture|image))\s+)?(?:has|have|is|are|shows?|contains?)\s+)?"
ASKING = r"(?:(?:can|could|would|will)\s+you\s+)?(?:please\s+)?"
DEGREES = r"(?:(?:an?\s+(?:tiny\s+|little\s+)?(?:bit|little|lot)|slightly|much|far|way|somewhat)\s+)?"
SUBJECT = r"(?:(?:i|it|that|which|who|they|we|you|there)\s+)?"
DO_NOT = r"(?:(?:do|does|did|should|must)(?:n'?t|\s+not))"
VERBS_OF_WISHES = r"(?:want|need|like|have|show|include|wear|contain|be)"
AUXILIARIES = r"(?:do|does|did|is|are|was|were|has|have|should|must)"

NEGATIONS = (  # wordings before a forbidden phrase
    rf"{SUBJECT}{DO_NOT}\s+{VERBS_OF_WISHES}\s+(?:it\s+)?",
    rf"{SUBJECT}{AUXILIARIES}(?:n'?t|\s+not)\s+",
    r"(?:instead|in place|free) of\s+",
    r"(?:rather than|other than|apart from|free from|no longer|no more)\s+",
    r"any(?:thing)?(?:\s+\w+)?\s+(?:but|except(?:\s+for)?|other than|apart from)\s+",
    r"except(?:ing)?(?:\s+for)?\s+(?!(?:that|this|it|they|there|he|she|is|has|with|in|on|more)\s)",
    rf"{ASKING}(?:remov(?:e|ing)|delete|omit|avoid|get(?:ting)? rid of|tak(?:e|ing) (?:off|away|out)|leav(?:e|ing) (?:out|off))\s+",
    rf"{ASKING}(?:lose|losing|drop|ditch|skip|cut|leave away)\s+(?={DETERMINERS}\s)",
    rf"{HAVING}(?:without|minus|lacking|neither|w/o)\s+",
    rf"{HAVING}(?:but\s+)?not\s+(?!(?:only|just|necessarily|sure|to)\b)",
    rf"{HAVING}no\s+(?!(?:matter|problem|doubt|idea|one)\b)",
    rf"{HAVING}nothing\s+(?!(?:like|but|else|to|in|on|with|about|changes?|different|special)\b)",
    rf"(?<!or ){HAVING}{DEGREES}(?:less|fewer)\s+(?!than\b)",
)
NEGATION = re.compile(rf"(?<![\w-])(?:{'|'.join(NEGATIONS)})", re.IGNORECASE)
CONTRASTING = re.compile(r"instead|in place|rather", re.IGNORECASE)

REWRITES = (  # (pattern, replacement): wordings that are normalized first
    (rf"\b(?:{DO_NOT}|never|without)\s+(?:chang|touch|alter|los|remov)(?:e|ing)?\s+(?:the\s+|its\s+)?", ", keep the "),
    (r"\b(not|nothing)\s+(?=(?:only|just)\b)", rf"\1{MASK}"),
    (r"\b(same(?: one| thing)?|exactly this|like this|this) except (?:that )?(?!the\b|for\b|an?\b|no\b|with)", r"\1 but "),
    (r"\b([a-z]+)-free\b", rf", {NEGATED}\1, "),
    (rf"\b(?:take|leave)\s+({DETERMINERS}\s+[^,;.]+?)\s+(?:off|away|out)\b", rf", {NEGATED}\1, "),
    (rf"\bwith\s+({DETERMINERS}\s+[^,;.]+?)\s+(?:removed|taken off|gone)\b", rf", {NEGATED}\1, "),
    (r"\b(?:replace|swap|exchange)\s+([^,;.]+?)\s+(?:with|by|for)\s+", rf", {NEGATED}\1, "),
)

KEEPING = (
    r"(?:keep(?:ing)?|with|in)?\s*the same\s+(?!(?:in|for|as|at|by|one|thing|only|just)\b)"
    rf"|same\s+(?={SHARED})|keep(?:ing)?\s+(?:the\s+|its\s+)?"
)
POLITE = (
    rf"(?:can|could|may) (?:i|you|we) (?:please )?(?:have|get|see|show me|give me|find me|find|make) {THIS}",
    rf"(?:what|how) about|do you (?:have|sell) {THIS}",
    rf"(?:show|give|find|get) (?:me|us) {THIS}",
    rf"i(?:'d| would) (?:like|love|want|prefer) {THIS}",
    rf"i want {THIS}",
    rf"(?:{SAME}){RELATION}",
)
FILLING = rf"^(?:but|and|make it|i want it|please|instead|with|is|has|{'|'.join(POLITE)})\b\s*|\s*\b(?:instead|please)$"
BREAK = r"(\s*(?:[,;.]|\b(?:and|but(?! not)|with(?!out)|while)\b)\s*)"
EMPTY = re.compile(rf"(?:{SAME}|the same (?:but|except)|like this(?: one)?|this|it|no|not|without)?", re.IGNORECASE)
VACUOUS = re.compile(  # the rest of a prompt that only forbids: "a version without", "something similar but not"
    r"(?:(?:something |one )?(?:like|similar to) (?:this|that)(?: one)?|that|(?:this |that |an? |the )?(?:one|ones|version)"
    r"|(?:something |a )?similar(?: one)?|something|anything|i want|i prefer|it is|it has|there (?:is|are)|which|who|a bit|make)",
    re.IGNORECASE,
)
LEADING = re.compile(
    rf"^(?:{DETERMINERS}|an?|so|too|very|quite|as|such|really|in|with|made of|of|being|be|having|have|has|had|got|wearing|is|are"
    r"|much|many|either)\s+",
    re.IGNORECASE,
)
TRAILING = re.compile(
    r"\s+(?:please|at all|any ?more|instead|this time|though|on it|in it|ones?|either|if possible|as (?:before|this|here|it is))$",
    re.IGNORECASE,
)
TAIL = re.compile(r"\s+(?=(?:in|for|as|at)\s)", re.IGNORECASE)
WISH = re.compile(
    r"(?<!\bthat)(?<!\bwhich)(?<!\bwho)\s+(?=(?:has|shows|it has|it is|it's|show|make it|use|put|add|i want)\s)", re.IGNORECASE
)
CLAUSE = re.compile(r"\b(?:is|are|was|were|has|have|shows?|there)\b", re.IGNORECASE)
NOT_BARE = ("more", "less", "keep", "then", "also", "still", "very", "longer", "shorter", "without", "no", "not", "please")
